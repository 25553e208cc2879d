"""An inner layer that is aligned with a frozen model: what trains, what is stored, and what predictions do without."""

import pytest
import torch
from lightning.pytorch import seed_everything
from transformers import Dinov2Config, Dinov2Model, DINOv3ViTConfig, DINOv3ViTModel

from geometry.errors import InputError
from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.inference import Predictor
from lightning_modules.losses.base import LossInputs
from lightning_modules.losses.feature_alignment import FeatureAlignment, FeatureMatching
from lightning_modules.losses.scheduled import Scheduled
from lightning_modules.losses.teacher import Teacher, normalize_spatially
from lightning_modules.networks.compilation import Compilation
from tests.helpers.runs import differences
from tests.helpers.tiny import TinyData, build_base, make_batch
from tests.lightning_modules.inference.runs import make_run, photo
from tests.lightning_modules.test_estimator import make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")

WIDTH = 16
LAYER = {"layer": "unet.mid_block", "layer_channels": 16}


def build_teacher(folder, kind="dinov2", seed=0):
    """Write a random vision transformer of one layer on patches of 4 pixels."""
    shape = {"hidden_size": WIDTH, "num_hidden_layers": 1, "num_attention_heads": 2, "patch_size": 4, "image_size": 32}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "dinov2":
            Dinov2Model(Dinov2Config(**shape, mlp_ratio=2)).save_pretrained(folder)
        else:
            config = DINOv3ViTConfig(**shape, intermediate_size=2 * WIDTH, num_register_tokens=4)
            DINOv3ViTModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    return str(build_teacher(tmp_path_factory.mktemp("teacher")))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def alignment(teacher, **options):
    return FeatureAlignment(**(LAYER | {"teacher": teacher, "teacher_channels": WIDTH, "input_size": 32} | options))


def make_estimator(base, *losses, checkpointing=False, **options):
    network = StableDiffusion(str(base), unet_checkpointing=checkpointing, **options)
    return SingleStepEstimator(network, Depth(extra_losses=list(losses)), warmup_steps=0)


class TestTeacher:
    @pytest.mark.parametrize("kind", ["dinov2", "dinov3"])
    def test_features_are_those_of_the_patches_of_the_image(self, tmp_path, kind):
        teacher = Teacher(str(build_teacher(tmp_path, kind)), WIDTH, input_size=32)
        image = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
        features = teacher.features(image)
        assert features.shape == (2, WIDTH, 6, 8)
        mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        tokens = teacher._model(pixel_values=((image + 1) / 2 - mean) / std).last_hidden_state
        first = 1 if kind == "dinov2" else 5  # class and register tokens
        torch.testing.assert_close(features.flatten(2).mT, tokens[:, first:], rtol=1e-3, atol=1e-4)

    def test_a_teacher_that_is_not_there_or_of_another_width_is_refused_in_one_line(self, teacher, tmp_path):
        with pytest.raises(InputError, match="cannot be loaded"):
            Teacher(str(tmp_path / "nowhere"), WIDTH).load()
        with pytest.raises(InputError, match=rf"tokens of {WIDTH} channels on patches of 4 pixels"):
            Teacher(teacher, 768).load()

    def test_a_teacher_without_some_of_its_weights_is_refused(self, teacher, tmp_path):
        model = Dinov2Model.from_pretrained(teacher)
        weights = {name: value for name, value in model.state_dict().items() if "attention" not in name}
        model.save_pretrained(tmp_path, state_dict=weights)
        with pytest.raises(InputError, match=r"lacks weights, for instance encoder.layer.0.attention"):
            Teacher(str(tmp_path), WIDTH).load()

    def test_pickled_weights_are_not_opened(self, teacher, tmp_path):
        model = Dinov2Model.from_pretrained(teacher)
        model.config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
        with pytest.raises(InputError, match="cannot be loaded"):
            Teacher(str(tmp_path), WIDTH).load()

    def test_spatial_normalisation_takes_a_share_of_the_mean(self):
        features = torch.rand(2, 3, 5, 7) + 4
        whole = normalize_spatially(features, 1.0)
        torch.testing.assert_close(whole.mean(dim=(2, 3)), torch.zeros(2, 3), rtol=0, atol=1e-4)
        torch.testing.assert_close(whole.std(dim=(2, 3), unbiased=False), torch.ones(2, 3), rtol=1e-3, atol=0)
        assert normalize_spatially(features, 0) is features


class TestDistance:
    def test_features_of_the_same_direction_cost_nothing_and_opposite_ones_2(self, teacher):
        loss, features = alignment(teacher), torch.randn(2, WIDTH, 4, 4)
        mask = torch.ones(2, 1, 4, 4, dtype=torch.bool)
        assert loss(3 * features, features, mask) < 1e-5
        assert loss(-features, features, mask).item() == pytest.approx(2)

    def test_the_divergence_is_that_of_softmaxes(self, teacher):
        generator = torch.Generator().manual_seed(0)
        learnt, known = (torch.randn(1, WIDTH, 2, 2, generator=generator) for _ in range(2))
        mask = torch.tensor([[True, False], [True, True]])[None, None]
        p, q = known.double().softmax(1), learnt.double().softmax(1)
        expected = (p * (p / q).log()).sum(dim=1)[mask[:, 0]].mean()
        found = alignment(teacher, similarity="kl")(learnt, known, mask)
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("options", [{}, {"subject": "image", "similarity": "kl", "projector": "mlp"}])
def test_gradients_reach_the_layer_and_the_projector_and_nothing_of_the_teacher(base, teacher, options, checkpointing):
    loss = alignment(teacher, **options)
    estimator = make_estimator(base, loss, checkpointing=checkpointing).train()
    estimator.task.loss.weight = 0.0
    loss.attach(estimator.network)
    value, extras = estimator.training_loss(make_batch(), [0, 1])
    value.backward()
    assert value.item() == pytest.approx(0.2 * extras["feature_alignment"].item(), rel=1e-5) and value > 0
    assert all(weight.grad.abs().sum() > 0 for weight in loss.projector.parameters())
    unet = estimator.network.unet
    assert unet.down_blocks[0].resnets[0].conv1.weight.grad.abs().sum() > 0
    assert not unet.conv_out.weight.grad.any()  # which comes after the layer
    assert not any("teacher" in name for name in estimator.state_dict()) and loss._seen is None
    assert all(weight.grad is None for weight in loss.teacher._model.parameters())


def test_the_layer_is_brought_closer_to_the_teacher_by_training(base, teacher, tmp_path):
    seed_everything(0, verbose=False)
    loss = alignment(teacher, weight=5.0)
    estimator = make_estimator(base, loss)
    estimator.make_optimizer = lambda p: torch.optim.AdamW(p, lr=1e-2)
    batch, values = make_batch(), []
    make_trainer(tmp_path, max_steps=1).fit(estimator, TinyData())
    for _ in range(2):
        values.append(estimator.training_loss(batch, [0, 1])[1]["feature_alignment"].item())
        if len(values) == 1:
            make_trainer(tmp_path / "more", max_steps=20).fit(estimator, TinyData(num_batches=20))
    assert values[1] < 0.8 * values[0]


def test_the_projector_is_in_checkpoints_and_comes_back(base, teacher, tmp_path):
    estimator = make_estimator(base, alignment(teacher))
    make_trainer(tmp_path, max_steps=2).fit(estimator, TinyData())
    stored = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    names = {name for name in stored if name.startswith("task.")}
    assert names == {"task.extra_losses.0.projector.weight", "task.extra_losses.0.projector.bias"}
    again = make_estimator(base, alignment(teacher))
    make_trainer(tmp_path / "again", max_steps=3).fit(again, TinyData(), ckpt_path=tmp_path / "last.ckpt")
    assert again.global_step == 3
    torch.testing.assert_close(estimator.state_dict()[sorted(names)[0]], stored[sorted(names)[0]])


def test_a_run_that_is_resumed_has_the_weights_of_an_undisturbed_one(base, teacher, tmp_path):
    def run(folder, max_steps, ckpt_path=None):
        seed_everything(0, verbose=False)
        estimator = make_estimator(base, Scheduled(alignment(teacher), steps=[1, 4], factors=[0.0, 4.0]))
        estimator.decay_steps = 10
        trainer = make_trainer(folder, max_steps=max_steps)
        trainer.fit(estimator, TinyData(num_batches=8), ckpt_path=ckpt_path)
        weight = trainer.callback_metrics["train/feature_alignment_weight"].item()  # of the last step, after 3 others
        assert max_steps < 4 or weight == pytest.approx(0.2 * 4 * (3 - 1) / (4 - 1))
        return estimator

    whole = run(tmp_path / "whole", 4).state_dict()
    run(tmp_path / "part", 2)
    again = run(tmp_path / "rest", 4, tmp_path / "part/last.ckpt").state_dict()
    assert not differences(whole, again)


def test_predictions_and_exports_need_no_teacher(tmp_path):
    options = {"teacher": str(tmp_path / "gone"), "teacher_channels": WIDTH} | LAYER
    loss = {"class_path": "lightning_modules.losses.feature_alignment.FeatureAlignment", "init_args": options}
    run = make_run(tmp_path / "run", task_options={"extra_losses": [loss]})
    predictor = Predictor.load(run, processing_res=0)
    assert predictor(photo(32, 32)).shape == (32, 32)
    parts = predictor.estimator.network.export_parts()
    assert not any("projector" in name for part in parts.values() for name in part.state_dict())
    assert not parts["unet"]._forward_pre_hooks


def test_an_unknown_layer_is_refused_and_its_neighbours_named(base, teacher):
    loss = alignment(teacher, layer="unet.down_blocks.7")
    with pytest.raises(InputError, match=r"no layer 'unet.down_blocks.7'; it has, for instance, unet.down_blocks.0, "):
        loss.attach(make_estimator(base).network)


def test_a_wrong_number_of_channels_is_refused_with_the_right_one(base, teacher):
    loss = alignment(teacher, layer_channels=5)
    estimator = make_estimator(base, loss)
    loss.attach(estimator.network)
    with pytest.raises(InputError, match=r"unet.mid_block puts out \(2, 16, 4, 4\); set layer_channels"):
        estimator.training_loss(make_batch(), [0, 1])


def test_compiled_networks_are_refused_for_hooks_do_not_run_in_them(base, teacher):
    estimator = make_estimator(base, compile=Compilation(parts=["unet"]))
    with pytest.raises(InputError, match=r"does not work with network.compile"):
        alignment(teacher).attach(estimator.network)


def test_tokens_are_put_back_into_their_grid(teacher):
    loss = alignment(teacher, layer_channels=3)
    tokens = torch.arange(2 * 6 * 3).reshape(2, 6, 3).float()
    image = loss._as_image(tokens, 64, 96)
    assert image.shape == (2, 3, 2, 3) and torch.equal(image[0, :, 1, 2], tokens[0, 5])
    with pytest.raises(InputError, match="has 7 tokens for an image of 64x96 pixels"):
        loss._as_image(torch.zeros(2, 7, 3), 64, 96)


class TestFeatureMatching:
    def test_the_truth_costs_nothing_and_the_gradient_goes_through_the_teacher(self, teacher):
        loss, batch = FeatureMatching(teacher, WIDTH, input_size=32), make_batch()
        task = Depth(loss, parameterization="log")
        perfect = task.predict(task.target_image(batch)[0])
        assert task.training_loss(perfect, batch)[0] < 1e-5
        wrong = (perfect + 0.3 * batch.image[:, :1]).clamp(-1, 1).requires_grad_()
        value, _ = task.training_loss(wrong, batch)
        value.backward()
        mask = batch.targets["depth"].mask
        assert value > 0.01 and wrong.grad[mask].abs().sum() > 0 and not wrong.grad[~mask].any()

    def test_images_without_a_known_pixel_count_for_nothing(self, teacher):
        loss, batch = FeatureMatching(teacher, WIDTH, input_size=32, weight=1.0), make_batch()
        target = batch.targets["depth"]
        target.mask[1] = False
        task = Depth(loss)
        prediction = torch.rand(2, 1, 32, 32)
        both = task.training_loss(prediction, batch)[0]
        first = LossInputs(prediction[:1], task.target(batch[:1]), batch[:1], loss, task.modality)
        assert both.item() == pytest.approx(loss.of(first).item(), rel=1e-4)
