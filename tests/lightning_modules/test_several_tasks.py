"""Several outputs of one network: against stock parts told the same by hand, through training, and handed over."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from diffusers import UNet2DConditionModel
from transformers import CLIPVisionModelWithProjection

import train
from geometry.errors import InputError
from lightning_modules import Depth, Normals, SeveralTasks, SingleStepEstimator, StableDiffusion
from lightning_modules.diffusion import DiffusionEstimator
from lightning_modules.losses.auxiliary import ImageReconstruction, LatentConsistency
from lightning_modules.losses.normalized import NormalizedL1
from lightning_modules.networks.task_switch import TaskSwitch
from lightning_modules.planning.simulated_step import make_batch as make_planned_batch
from lightning_modules.single_task import alone
from tests.helpers.benchmark_archives import write_depth_archive, write_normals
from tests.helpers.labelled_bases import build_geowizard, build_lotus
from tests.helpers.tiny import build_base, make_batch
from tests.lightning_modules.inference.runs import make_run, photo

pytestmark = pytest.mark.filterwarnings("ignore")

LOTUS = TaskSwitch(["annotation", "image"])
GEOWIZARD = TaskSwitch(["normals", "depth"], joint=True, domain="indoor", domains={"streets": "outdoor"})


@pytest.fixture(scope="module")
def lotus(tmp_path_factory):
    return build_lotus(tmp_path_factory.mktemp("lotus"))


@pytest.fixture(scope="module")
def geowizard(tmp_path_factory):
    return build_geowizard(tmp_path_factory.mktemp("geowizard"))


def wave(*unit):
    return [*map(math.sin, unit), *map(math.cos, unit)]


@torch.no_grad()
def stock_output(network, base, latents, prompt, labels):
    """What a UNet of diffusers says that was loaded from the same folder."""
    unet = UNet2DConditionModel.from_pretrained(base / "unet")
    return unet(latents, torch.tensor(999), prompt, class_labels=torch.tensor(labels)).sample


def test_a_folder_as_lotus_publishes_them_predicts_what_its_parts_do_with_the_label_of_the_annotation(lotus):
    network = StableDiffusion(str(lotus), noise="none", prediction_type="sample", switch=LOTUS)
    image = make_batch().image
    latent = network.encode(image)
    prompt = network.prompt_embedding.expand(2, -1, -1)
    annotation = stock_output(network, lotus, latent, prompt, [wave(1, 0)] * 2)
    reconstruction = stock_output(network, lotus, latent, prompt, [wave(0, 1)] * 2)
    with torch.no_grad():
        found = network.predict_latents(image, outputs=["annotation", "image"])
        prediction = SingleStepEstimator(network, Depth())(image)
        decoded = network.decode(annotation)
    assert torch.allclose(found[0], annotation, atol=1e-5) and torch.allclose(found[1], reconstruction, atol=1e-5)
    assert (annotation - reconstruction).abs().max() > 1e-3, "the label says nothing"
    assert torch.allclose(prediction, Depth().predict(decoded), atol=1e-5)


def test_half_of_the_passes_reconstruct_the_image_and_their_loss_is_added(lotus):
    network = StableDiffusion(str(lotus), noise="none", prediction_type="sample", switch=LOTUS)
    task, batch = Depth(loss=NormalizedL1(weight=0.0)), make_batch()
    estimator = SingleStepEstimator(network, task, LatentConsistency(1.0), ImageReconstruction(0.5))
    loss, extras = estimator.training_loss(batch, [0, 0])
    annotation, image = network.predict_latents(batch.image, outputs=["annotation", "image"])
    truth, known = task.target_image(batch)
    error = (annotation - network.encode(truth)).square().mean(dim=1, keepdim=True)
    expected = error[network.codec.known_latents(known)].mean()
    rest = F.mse_loss(image, network.encode(batch.image))
    assert extras["latent_consistency"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert extras["image_reconstruction"].item() == pytest.approx(rest.item(), rel=1e-5)
    assert loss.item() == pytest.approx((expected + 0.5 * rest).item(), rel=1e-5)
    loss.backward()
    assert network.unet.class_embedding.linear_1.weight.grad.abs().sum() > 0


class PlainJointAttention:
    """GeoWizard's attention between depth and normals, written out with softmax for two halves of a batch."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **options):
        first, second = hidden_states.chunk(2)
        both = torch.cat([first, second], dim=1)
        results = []
        for tokens in (first, second):
            query, key, value = attn.to_q(tokens), attn.to_k(both), attn.to_v(both)
            heads = []
            for part in range(attn.heads):
                width = query.shape[2] // attn.heads
                own = slice(part * width, (part + 1) * width)
                weights = (query[..., own] @ key[..., own].mT / math.sqrt(width)).softmax(dim=-1)
                heads.append(weights @ value[..., own])
            results.append(attn.to_out[0](torch.cat(heads, dim=2)))
        return torch.cat(results)


@torch.no_grad()
@pytest.mark.parametrize(("dataset", "domain"), [(None, (1, 0, 0)), ("streets", (0, 1, 0))])
def test_a_folder_as_geowizard_publishes_them_predicts_what_its_parts_do_with_both_latents_at_once(
    geowizard, dataset, domain
):
    network = StableDiffusion(str(geowizard), switch=GEOWIZARD)
    image = make_batch().image
    encoder = CLIPVisionModelWithProjection.from_pretrained(geowizard / "image_encoder").eval()
    small = F.interpolate((image + 1) / 2, (16, 16), mode="bicubic", antialias=True)
    mean, std = (torch.tensor(each)[:, None, None] for each in ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4]))
    embedding = encoder((small - mean) / std).image_embeds[:, None]

    unet = UNet2DConditionModel.from_pretrained(geowizard / "unet")
    for name, module in unet.named_modules():
        if name.endswith("attn1"):
            module.set_processor(PlainJointAttention())
    latent = network.encode(image)
    labels = [wave(0, 1) + wave(*domain)] * 2 + [wave(1, 0) + wave(*domain)] * 2  # depth, then normals
    sample = torch.cat([latent, torch.zeros_like(latent)], dim=1).repeat(2, 1, 1, 1)
    output = unet(sample, torch.tensor(999), embedding.repeat(2, 1, 1), class_labels=torch.tensor(labels)).sample
    alphas = network.noise_process.scheduler.alphas_cumprod
    depth, normals = (-((1 - alphas[999]) ** 0.5) * output).chunk(2)

    task = SeveralTasks([Depth(), Normals(frame="opencv")])
    prediction = SingleStepEstimator(network, task)(image, dataset=dataset)
    expected = F.normalize(network.decode(normals), dim=1) * torch.tensor([1.0, -1, -1])[:, None, None]
    assert torch.allclose(prediction[:, :1], Depth().predict(network.decode(depth)), atol=1e-5)
    assert torch.allclose(prediction[:, 1:], expected, atol=2e-3)  # short vectors amplify rounding
    single = StableDiffusion(str(geowizard), switch=GEOWIZARD)
    for name, module in single.unet.named_modules():
        if name.endswith("attn1"):
            module.set_processor(type(unet.mid_block.attentions[0].transformer_blocks[0].attn2.processor)())
    apart = SingleStepEstimator(single, task)(image, dataset=dataset)
    assert (apart - prediction).abs().max() > 1e-3, "the outputs do not see each other"


def test_depth_and_normals_by_switch_have_their_own_losses_metrics_and_channels(tmp_path):
    base = build_base(tmp_path / "base")
    network = StableDiffusion(str(base), switch=TaskSwitch(["depth", "normals"]))
    depth, normals = Depth(), Normals()
    estimator, batch = SingleStepEstimator(network, SeveralTasks([depth, normals])), make_batch()
    loss, extras = estimator.training_loss(batch, [0, 0])
    with torch.no_grad():
        prediction = estimator(batch.image)
        parts = [alone(estimator, name)(batch.image) for name in ("depth", "normals")]
    assert torch.allclose(prediction, torch.cat(parts, dim=1), atol=1e-3)
    each = [task.training_loss(part, batch)[0] for task, part in zip((depth, normals), parts, strict=True)]
    assert loss.item() == pytest.approx(sum(each).item(), rel=1e-5)
    assert extras["depth_loss"].item() == pytest.approx(each[0].item(), rel=1e-5)
    metrics = estimator.task.make_metrics(batch.dataset)
    estimator.task.update_metrics(metrics, torch.cat(parts, dim=1), batch)
    for task, part, metric in zip((depth, normals), parts, metrics, strict=True):
        own = task.make_metrics(batch.dataset)
        task.update_metrics(own, part, batch)
        assert own[0].compute() == metric.compute()


def test_a_data_set_without_the_truth_of_one_task_is_refused(tmp_path):
    network = StableDiffusion(str(build_base(tmp_path)), switch=TaskSwitch(["depth", "normals"]))
    estimator = SingleStepEstimator(network, SeveralTasks([Depth(), Normals()]))
    with pytest.raises(InputError, match=r"task Normals needs normals, but data set 'tiny' does not deliver it"):
        estimator.training_loss(make_batch(modalities=["depth"]), [0, 0])


def test_adapters_leave_the_embedding_of_labels_to_train_where_it_is_new_and_only_there(tmp_path, lotus):
    from lightning_modules.networks.lora import LoRA

    def trains(base):
        options = {"noise": "none", "switch": LOTUS, "lora": LoRA(rank=2)}
        network = StableDiffusion(str(base), **options)
        return network.unet.class_embedding.linear_1.weight.requires_grad

    assert trains(build_base(tmp_path)) and not trains(lotus)


def test_what_does_not_fit_is_refused_in_one_line(tmp_path, lotus, geowizard):
    plain = build_base(tmp_path / "plain")
    second = build_geowizard(tmp_path / "second", second_version=True)
    two = SeveralTasks([Depth(), Normals()])
    cases = [
        (lambda: StableDiffusion(str(lotus), noise="none"), "wants class labels of 4 numbers"),
        (lambda: StableDiffusion(str(lotus), "none", switch=TaskSwitch(["a", "b", "c"])), "labels of 4 numbers, but"),
        (lambda: StableDiffusion(str(geowizard)), "embeds the image in place of a prompt"),
        (lambda: StableDiffusion(str(geowizard), switch=LOTUS), "is GeoWizard. Needed"),
        (lambda: StableDiffusion(str(second), switch=TaskSwitch(["normals", "depth"], True)), "second version"),
        (lambda: SingleStepEstimator(StableDiffusion(str(plain)), two), "several tasks need a network"),
        (lambda: SingleStepEstimator(StableDiffusion(str(plain), switch=LOTUS), two), "an output for each"),
        (lambda: DiffusionEstimator(StableDiffusion(str(plain), switch=LOTUS), Depth()), "without a switch"),
        (
            lambda: SingleStepEstimator(StableDiffusion(str(plain)), Depth(), None, ImageReconstruction()),
            "needs a network with an output image",
        ),
        (lambda: SeveralTasks([Depth(), Depth()]), "different modalities"),
        (lambda: SeveralTasks([Depth()], only="normals"), "no task for only: 'normals'"),
        (lambda: two.modality, "the model predicts depth, normals"),
        (lambda: TaskSwitch(["depth", "depth"]), "different names"),
        (lambda: TaskSwitch(domain="space"), "no domain 'space'"),
        (lambda: TaskSwitch(domains={"streets": "outdoor"}), "needs network.switch.domain"),
    ]
    for make, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_colours_of_an_image_encoder_that_are_no_three_numbers_are_refused(tmp_path):
    base = build_geowizard(tmp_path)
    file = base / "feature_extractor/preprocessor_config.json"
    for name, value in (("image_mean", [0.5, 0.5]), ("image_std", [1, 0, 1]), ("image_mean", ["a", 1, 1])):
        good = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
        file.write_text(json.dumps(good | {name: value}))
        with pytest.raises(InputError, match=rf"preprocessor_config.json has {name}.*Needed: three numbers"):
            StableDiffusion(str(base), switch=GEOWIZARD)


def test_labels_say_output_and_domain_by_sines_and_cosines():
    found = GEOWIZARD.labels(["depth", "normals"], "streets")
    expected = [wave(0, 1) + wave(0, 1, 0), wave(1, 0) + wave(0, 1, 0)]
    assert np.allclose(found.numpy(), expected) and GEOWIZARD.width == 10 and LOTUS.width == 4


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of depth and normals by switch."""
    tasks = [{"class_path": "lightning_modules.Depth"}, {"class_path": "lightning_modules.Normals"}]
    return make_run(
        tmp_path_factory.mktemp("several"),
        "SeveralTasks",
        network_options={"switch": {"outputs": ["depth", "normals"]}},
        task_options={"tasks": tasks},
    )


def test_predict_writes_the_files_of_every_modality_or_of_the_one_that_is_asked_for(run, tmp_path, capsys):
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(tmp_path / "room.png"), photo(16, 24))
    common = ["predict", str(tmp_path / "room.png"), f"--run={run}", "--processing_res=0", "--quiet"]
    train.main([*common, f"--output={tmp_path / 'both'}", "--point_cloud"])
    said = capsys.readouterr().out
    assert "depth in" in said and "normals in" in said
    names = {file.name for file in (tmp_path / "both").iterdir()}
    assert {"room_depth.npy", "room_normals.npy"} <= names
    assert sum(name.endswith(".ply") for name in names) == 1
    depth, normals = (np.load(tmp_path / f"both/room_{name}.npy") for name in ("depth", "normals"))
    assert depth.shape == (16, 24) and normals.shape == (16, 24, 3)

    train.main([*common, f"--output={tmp_path / 'one'}", "--modality=normals"])
    names = {file.name for file in (tmp_path / "one").iterdir()}
    assert "room_normals.npy" in names and not any("depth" in name for name in names)
    assert np.array_equal(np.load(tmp_path / "one/room_normals.npy"), normals)
    with pytest.raises(SystemExit):
        train.main([*common, f"--output={tmp_path / 'none'}", "--modality=albedo"])
    assert "the model predicts depth, normals: choose one of them with --modality" in capsys.readouterr().err


def test_export_writes_a_folder_of_each_modality_and_says_how_far_each_is_from_the_checkpoint(run, tmp_path, capsys):
    command = ["export", f"--run={run}", f"--output={tmp_path / 'out'}"]
    train.main(command)
    said = capsys.readouterr().out
    for name in ("depth", "normals"):
        assert f"{tmp_path / 'out' / name}: {name}, diffusers, float32. Largest difference" in said
        record = json.loads((tmp_path / "out" / name / "onestep.json").read_text())
        assert record["predicts"] == name and record["agreement"]["maximum"] < 1e-3
        config = json.loads((tmp_path / "out" / name / "unet/config.json").read_text())
        assert config["class_embed_type"] is None, "a stock pipeline gives no label"
    train.main([*command, "--overwrite"])
    with pytest.raises(SystemExit):
        train.main([*command, "--overwrite", "--push_to_hub=me/model"])
    assert "--push_to_hub takes one export" in capsys.readouterr().err


def test_a_test_scores_the_one_modality_that_is_chosen_and_says_so_if_none_is(run, tmp_path, capsys):
    write_normals(tmp_path / "data/dsine_eval", "nyuv2")
    common = ["test", f"--config={run / 'config.yaml'}", f"--ckpt_path={run / 'checkpoints/last.ckpt'}"]
    common += ["--data=datamodules.Benchmarks", f"--data.root={tmp_path / 'data'}", "--data.num_workers=0"]
    common += [f"--trainer.default_root_dir={tmp_path}", "--trainer.accelerator=cpu"]
    with pytest.raises(SystemExit):
        train.main(common)
    said = capsys.readouterr().err
    assert "benchmarks score one modality, and the model predicts depth, normals" in said
    train.main([*common, "--model.task.only=normals"])
    assert "mean_angle_deg" in capsys.readouterr().out


def test_the_config_of_lotus_published_weights_scores_a_folder_in_their_layout(lotus, tmp_path, capsys):
    write_depth_archive(tmp_path / "data", "nyuv2", num_samples=1)
    config = ["--config=configs/benchmark_lotus_depth.yaml", f"--model.network.base={lotus}"]
    options = [f"--data.root={tmp_path / 'data'}", "--data.num_workers=0", f"--trainer.default_root_dir={tmp_path}"]
    train.main(["test", *config, *options, "--trainer.accelerator=cpu", "--evaluation.num_images=0"])
    assert "nyuv2: abs_rel" in capsys.readouterr().out


def test_a_plan_takes_its_step_with_the_truth_of_all_tasks(tmp_path):
    network = StableDiffusion(str(build_base(tmp_path)), switch=TaskSwitch(["depth", "normals"]))
    estimator = SingleStepEstimator(network, SeveralTasks([Depth(), Normals()]))
    batch = make_planned_batch(estimator, 2, (16, 16), "32-true")
    assert {name: target.values.shape[1] for name, target in batch.targets.items()} == {"depth": 1, "normals": 3}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lotus_d", "geowizard_e2e"])
def test_recipes_with_a_switch_can_be_planned(name, lotus, geowizard, tmp_path, capsys):
    recipe = yaml.safe_load(Path(f"configs/recipes/{name}.yaml").read_text())
    recipe["model"]["init_args"]["network"]["init_args"]["base"] = str(lotus if name == "lotus_d" else geowizard)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    train.main(["plan", f"--run_config={tmp_path / 'recipe.yaml'}", "--image_size", "32", "32"])
    assert "TFLOP per image" in capsys.readouterr().out
