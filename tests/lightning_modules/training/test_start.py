import logging
import shutil

import pytest
import torch

from geometry.errors import InputError
from lightning_modules import Depth, DiffusionEstimator, SingleStepEstimator, StableDiffusion
from lightning_modules.losses.feature_alignment import FeatureAlignment
from lightning_modules.losses.sink import SinkLoss
from lightning_modules.networks.lora import LoRA
from tests.helpers.tiny import TinyData, build_base
from tests.lightning_modules.losses.test_feature_alignment import LAYER, WIDTH, build_teacher
from tests.lightning_modules.test_estimator import make_trainer, trained_weights

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.* is deprecated"),
    pytest.mark.filterwarnings("ignore:Found .* in eval mode at the start of training"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"))


def make(estimator, base, lr=1e-2, **options):
    network = StableDiffusion(str(base))
    return estimator(network, Depth(), optimizer=lambda p: torch.optim.AdamW(p, lr=lr, fused=True), **options)


@pytest.mark.parametrize(
    ("first", "second"), [(DiffusionEstimator, SingleStepEstimator), (SingleStepEstimator, DiffusionEstimator)]
)
def test_either_estimator_starts_from_the_weights_of_the_other_and_resumes_its_own(base, tmp_path, first, second):
    start = make(first, base)
    make_trainer(tmp_path / "first", max_steps=2).fit(start, TinyData())
    file = str(tmp_path / "first" / "last.ckpt")

    still = make(second, base, lr=0.0, init_from=file)
    make_trainer(tmp_path / "still", max_steps=1).fit(still, TinyData())
    assert torch.equal(trained_weights(still), trained_weights(start))
    assert still.global_step == 1

    moved = make(second, base, init_from=file)
    make_trainer(tmp_path / "moved", max_steps=1).fit(moved, TinyData())
    resumed = make(second, base, lr=0.0, init_from=file)
    own = tmp_path / "moved" / "last.ckpt"
    make_trainer(tmp_path / "moved", max_steps=1).fit(resumed, TinyData(), ckpt_path=own, weights_only=True)
    assert torch.equal(trained_weights(resumed), trained_weights(moved))
    assert not torch.equal(trained_weights(resumed), trained_weights(start))


def test_starting_weights_that_cannot_be_used_are_one_line_with_the_name_of_the_file(base, tmp_path):
    def fit(name):
        make_trainer(tmp_path).fit(make(SingleStepEstimator, base, init_from=str(tmp_path / name)), TinyData())

    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"weights": torch.zeros(1)}, tmp_path / "other.ckpt")
    torch.save({"state_dict": {"network.unet.conv_in.bias": torch.zeros(3)}}, tmp_path / "small.ckpt")
    for name, reason in (
        ("missing.ckpt", "there is no checkpoint"),
        ("text.ckpt", "cannot be read"),
        ("other.ckpt", "no checkpoint of this project"),
        ("small.ckpt", "does not fit the network: it lacks .* has in another shape 1 weights"),
    ):
        with pytest.raises(InputError, match=f"{name}: .*{reason}") as error:
            fit(name)
        assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def stage_1(base, tmp_path_factory):
    """Stage 1 and its checkpoint, and how to make another stage with some losses and options."""
    folder = tmp_path_factory.mktemp("stages")
    teacher = str(build_teacher(folder / "teacher"))

    def make(losses, init_from=None, lr=1e-2, alpha=None, **network):
        aligned = FeatureAlignment(**LAYER, teacher=teacher, teacher_channels=WIDTH, input_size=32)
        task = Depth(extra_losses=[aligned if loss == "aligned" else loss for loss in losses])
        adapted = StableDiffusion(str(base), lora=LoRA(rank=2, alpha=alpha), **network)
        optimizer = lambda p: torch.optim.AdamW(p, lr=lr, fused=True)  # noqa: E731
        return SingleStepEstimator(adapted, task, optimizer=optimizer, warmup_steps=0, init_from=init_from)

    estimator = make(["aligned"])
    make_trainer(folder / "version_0/checkpoints", max_steps=2).fit(estimator, TinyData())
    return estimator, folder, make


class TestStages:
    """Stage 1 trains adapters, and a projector with them; stage 2 the decoder, too, with other losses."""

    @staticmethod
    def weights(estimator):
        return {name: weight.detach() for name, weight in estimator.named_parameters() if weight.requires_grad}

    def test_adapters_and_projectors_are_kept_and_the_decoder_starts_as_in_the_base(
        self, stage_1, base, tmp_path, caplog
    ):
        first, folder, make = stage_1
        second = make(["aligned", SinkLoss()], str(folder), lr=0.0, train_decoder=True)
        with caplog.at_level(logging.INFO):
            make_trainer(tmp_path, max_steps=1).fit(second, TinyData())
        own, before = self.weights(second), self.weights(first)
        assert all(torch.equal(own[name], weight) for name, weight in before.items())
        fresh = StableDiffusion(str(base)).vae.state_dict()
        decoder = {name: weight for name, weight in own.items() if name not in before}
        assert decoder and all(name.startswith("network.vae.") for name in decoder)
        assert all(torch.equal(fresh[name.removeprefix("network.vae.")], weight) for name, weight in decoder.items())
        assert "last.ckpt; the decoder, frozen in that run, starts as the base has it" in caplog.text

    def test_what_another_stage_has_no_loss_for_is_left_out_and_said(self, stage_1, tmp_path, caplog):
        _, folder, make = stage_1
        with caplog.at_level(logging.INFO):
            make_trainer(tmp_path, max_steps=1).fit(make([SinkLoss(), "aligned"], str(folder)), TinyData())
        assert "2 weights of losses begin anew; 2 weights of that run's losses are not used" in caplog.text

    def test_a_trained_decoder_is_not_lost_by_freezing_it_again(self, stage_1, tmp_path):
        _, folder, make = stage_1
        second = make([], str(folder), train_decoder=True)
        make_trainer(tmp_path / "second", max_steps=1).fit(second, TinyData())
        with pytest.raises(InputError, match=r"it holds \d+ weights \(network.vae.* that are frozen here"):
            make_trainer(tmp_path / "third").fit(make([], str(tmp_path / "second/last.ckpt")), TinyData())

    def test_adapters_that_would_count_for_another_share_are_refused(self, stage_1, tmp_path):
        _, folder, make = stage_1
        file = tmp_path / "scaled.ckpt"
        shutil.copy(folder / "version_0/checkpoints/last.ckpt", file)
        checkpoint = torch.load(file, weights_only=True)
        settings = {"model.network.lora.rank": 2, "model.network.lora.alpha": None}
        torch.save(checkpoint | {"settings": settings}, file)
        make_trainer(tmp_path / "same", max_steps=1).fit(make([], str(file)), TinyData())
        with pytest.raises(InputError, match=r"scaled.ckpt: .* lora.alpha 2 at rank 2; set lora.alpha to 2"):
            make_trainer(tmp_path / "other").fit(make([], str(file), alpha=4), TinyData())

    def test_a_folder_without_a_run_is_one_line(self, base, tmp_path):
        with pytest.raises(InputError, match="a folder without a run that has saved a checkpoint"):
            make_trainer(tmp_path).fit(make(SingleStepEstimator, base, init_from=str(tmp_path)), TinyData())
