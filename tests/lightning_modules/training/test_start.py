import pytest
import torch

from geometry.errors import InputError
from lightning_modules import Depth, DiffusionEstimator, SingleStepEstimator, StableDiffusion
from tests.helpers.tiny import TinyData, build_base
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
