"""What the options of the VAE and of compilation change, and what they must not."""

import pytest
import torch
from diffusers import AutoencoderKL
from torch._dynamo.utils import counters

from geometry.errors import InputError
from lightning_modules import SingleStepEstimator, StableDiffusion
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.lora import LoRA
from lightning_modules.tasks import Depth
from tests.helpers.tiny import build_base, make_batch


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def gradients_of(network, part):
    estimator = SingleStepEstimator(network, Depth())
    estimator.training_loss(make_batch(height=16, width=16), [0, 0])[0].backward()
    return torch.cat([p.grad.flatten() for p in part.parameters() if p.requires_grad])


class TestDecoder:
    def test_the_decoder_trains_only_on_request_and_the_encoder_never(self, base):
        for on in (False, True):
            vae = StableDiffusion(str(base), train_decoder=on).vae
            trained = {name.split(".")[0] for name, parameter in vae.named_parameters() if parameter.requires_grad}
            assert trained == ({"decoder", "post_quant_conv"} if on else set())
            assert vae.decoder.training == on
            assert not vae.encoder.training and not vae.quant_conv.training

    def test_validation_puts_a_trained_decoder_into_eval_mode_and_back(self, base):
        network = StableDiffusion(str(base), train_decoder=True).eval()
        assert not any(module.training for module in network.modules())
        assert network.train().vae.decoder.training

    def test_training_the_decoder_leaves_the_gradient_of_the_unet_as_it_is(self, base):
        plain, other = StableDiffusion(str(base)), StableDiffusion(str(base), train_decoder=True)
        first, second = gradients_of(plain, plain.unet), gradients_of(other, other.unet)
        assert torch.allclose(first, second, rtol=1e-4, atol=1e-6 * first.abs().max().item())
        assert all(p.grad.abs().sum() > 0 for p in other.vae.decoder.parameters())
        assert all(p.grad is None for p in other.vae.encoder.parameters())


class TestPrecision:
    def test_a_vae_in_bfloat16_predicts_nearly_the_same_in_float32(self, base):
        image = make_batch(height=16, width=16).image
        full, half = StableDiffusion(str(base)), StableDiffusion(str(base), vae_precision="bfloat16")
        assert {p.dtype for p in half.vae.parameters()} == {torch.bfloat16}
        assert {p.dtype for p in half.unet.parameters()} == {torch.float32}
        with torch.no_grad():
            expected, decoded = full(image), half(image)
            assert half.encode(image).dtype == decoded.dtype == torch.float32
        error = (decoded - expected).norm() / expected.norm()
        assert 0 < error < 0.06  # measured: 0.028

    def test_the_layout_of_weights_changes_speed_and_no_result(self, base):
        image = make_batch(height=16, width=16).image
        plain, laid_out = StableDiffusion(str(base)), StableDiffusion(str(base), channels_last=True)
        assert laid_out.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        assert laid_out.vae.decoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            expected, decoded = plain(image), laid_out(image)
        assert (decoded - expected).norm() / expected.norm() < 1e-4  # measured: 2e-5

    def test_the_gradient_through_a_decoder_in_bfloat16_points_the_same_way(self, base):
        full, half = StableDiffusion(str(base)), StableDiffusion(str(base), vae_precision="bfloat16")
        first, second = gradients_of(full, full.unet), gradients_of(half, half.unet)
        assert second.dtype == torch.float32
        assert torch.cosine_similarity(first, second, dim=0) > 0.99

    def test_a_decoder_that_trains_stays_in_float32_and_is_not_rounded(self, base):
        vae = StableDiffusion(str(base), train_decoder=True, vae_precision="bfloat16").vae
        stored = AutoencoderKL.from_pretrained(base, subfolder="vae")
        for name, weight in stored.named_parameters():
            trains = name.startswith(("decoder", "post_quant_conv"))
            own = vae.get_parameter(name)
            assert own.dtype == (torch.float32 if trains else torch.bfloat16)
            assert torch.equal(own, weight.to(own.dtype))

    def test_a_misspelt_precision_is_refused(self, base):
        with pytest.raises(InputError, match="no vae_precision 'half'"):
            StableDiffusion(str(base), vae_precision="half")


class TestCompilation:
    @pytest.mark.filterwarnings("ignore")
    def test_compiled_parts_give_the_same_gradients_under_the_same_names(self, base):
        options = {"unet_checkpointing": True, "decoder_checkpointing": True, "train_decoder": True}
        plain = StableDiffusion(str(base), **options)
        compiled = StableDiffusion(str(base), **options, compile=Compilation(backend="aot_eager"))
        assert compiled.state_dict().keys() == plain.state_dict().keys()
        torch._dynamo.reset()
        counters.clear()
        first, second = gradients_of(plain, plain), gradients_of(compiled, compiled)
        assert counters["stats"]["unique_graphs"] == 3, "UNet, encoder or decoder broke up, or was not compiled"
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-5 * first.abs().max().item())

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"backend": "fastest"}, "no compiler backend 'fastest'"),
            ({"mode": "fastest"}, "no compiler mode 'fastest'; choose one of default"),
            ({"backend": "eager", "mode": "max-autotune"}, "only the backend inductor has modes"),
            ({"regions": "layers"}, "compile.regions: there is no 'layers'"),
        ],
    )
    def test_misspelt_settings_are_refused(self, options, message):
        with pytest.raises(InputError, match=message):
            Compilation(**options)

    def test_a_part_that_the_network_lacks_is_refused(self, base):
        with pytest.raises(InputError, match=r"compile.parts: there is no 'text'; choose from unet, encoder, decoder"):
            StableDiffusion(str(base), compile=Compilation(backend="eager", parts=["unet", "text"]))

    def test_only_the_chosen_parts_are_compiled(self, base):
        network = StableDiffusion(str(base), compile=Compilation(backend="eager", parts=["decoder"]))
        is_compiled = {
            name: part._compiled_call_impl is not None
            for name, part in (
                ("unet", network.unet),
                ("encoder", network.vae.encoder),
                ("decoder", network.vae.decoder),
            )
        }
        assert is_compiled == {"unet": False, "encoder": False, "decoder": True}

    @pytest.mark.filterwarnings("ignore")
    def test_compiled_blocks_give_the_same_gradients_under_the_same_names(self, base):
        plain = StableDiffusion(str(base), train_decoder=True)
        options = Compilation(backend="aot_eager", regions="blocks")
        compiled = StableDiffusion(str(base), train_decoder=True, compile=options)
        blocks = {type(module).__name__ for module in compiled.modules() if module._compiled_call_impl is not None}
        assert blocks == {"ResnetBlock2D", "BasicTransformerBlock"}
        assert compiled.state_dict().keys() == plain.state_dict().keys()
        first, second = gradients_of(plain, plain), gradients_of(compiled, compiled)
        assert torch.allclose(first, second, rtol=1e-3, atol=1e-5 * first.abs().max().item())


class TestExport:
    def test_exported_parts_are_plain_models_in_float32(self, base, tmp_path):
        network = StableDiffusion(
            str(base),
            lora=LoRA(rank=2),
            vae_precision="bfloat16",
            unet_checkpointing=True,
            decoder_checkpointing=True,
            compile=Compilation(backend="eager"),
        )
        parts = network.export_parts()
        assert parts.keys() == {"unet", "vae"}
        fresh = StableDiffusion(str(base))
        for name, part in parts.items():
            assert {p.dtype for p in part.parameters()} == {torch.float32}
            assert not any(p.requires_grad for p in part.parameters())
            assert not any(module.training for module in part.modules())
            assert all(module._compiled_call_impl is None for module in part.modules())
            assert not part.is_gradient_checkpointing
            assert part.state_dict().keys() == getattr(fresh, name).state_dict().keys()
        assert network.unet._compiled_call_impl is not None
        assert network.unet.is_gradient_checkpointing and network.vae.decoder.gradient_checkpointing
        assert network.vae.dtype == torch.bfloat16

    def test_a_trained_decoder_is_exported(self, base):
        network = StableDiffusion(str(base), train_decoder=True)
        with torch.no_grad():
            network.vae.decoder.conv_out.bias += 1
        exported = network.export_parts()["vae"]
        assert torch.equal(exported.decoder.conv_out.bias, network.vae.decoder.conv_out.bias)
        assert exported.decoder.conv_out.bias.data_ptr() != network.vae.decoder.conv_out.bias.data_ptr()
