import pytest
import torch
from lightning.pytorch import Callback
from torch.utils.data import DataLoader

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.lora import LoRA
from tests.helpers import runs
from tests.helpers.planes import make_dataset
from tests.helpers.tiny import TinyData, build_base, make_batch
from tests.lightning_modules.test_estimator import make_trainer

pytestmark = pytest.mark.filterwarnings("ignore")
runs.start_server()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"), vae_factor=2)


class OnCPU(Callback):
    """Lets the largest size come first on a CPU, too, whose allocator does not ask for it."""

    def on_fit_start(self, trainer, pl_module):
        pl_module.largest_first.devices = ("cpu",)


class TwoSizes(TinyData):
    """Small images first, then wide ones."""

    train_image_sizes = ((16, 16), (8, 48))

    def train_dataloader(self):
        sizes = enumerate(((16, 16), (8, 48), (16, 16)))
        return DataLoader([make_batch(2, *size, seed=seed) for seed, size in sizes], batch_size=None)


def fit(base, folder, data, *callbacks, steps=3, **network):
    """Return the sizes of all images that were encoded, and the estimator."""
    torch.manual_seed(3)
    estimator = SingleStepEstimator(StableDiffusion(str(base), **network), Depth(), warmup_steps=0)
    encoded = []
    estimator.network.vae.encoder.register_forward_pre_hook(lambda _, args: encoded.append(tuple(args[0].shape[-2:])))
    make_trainer(folder, steps, list(callbacks), limit_val_batches=0).fit(estimator, data)
    return encoded, estimator


def test_memory_for_the_largest_images_to_train_on_is_asked_for_first(base, tmp_path):
    sizes = [(16, 16), (8, 48), (16, 16)]
    assert fit(base, tmp_path / "b", TwoSizes(), OnCPU())[0] == [(8, 48), *sizes]
    assert fit(base, tmp_path / "a", TwoSizes())[0] == sizes  # a CPU's allocator gives memory back
    assert fit(base, tmp_path / "c", TinyData(size=16), OnCPU(), steps=2)[0] == [(16, 16)] * 2


def test_it_leaves_no_trace_in_the_run(base, tmp_path):
    ends = []
    for callbacks in ([OnCPU()], []):
        adapters = LoRA(rank=2, dropout=0.5)  # which draws random numbers
        encoded, estimator = fit(base, tmp_path / str(len(callbacks)), TwoSizes(), *callbacks, lora=adapters)
        assert len(encoded) == 3 + len(callbacks)
        state = [*estimator.state_dict().values(), torch.get_rng_state(), estimator.gradient_guard.norm]
        ends.append([tensor.clone() for tensor in state])
    assert all(map(torch.equal, *ends))


def test_compiled_parts_are_proven_at_the_largest_size_before_they_run(base, tmp_path):
    torch._dynamo.reset()
    compilation = Compilation(backend="eager", dynamic=False, parts=["decoder"])
    proven_and_run = [size for size in ((8, 48), (16, 16)) for _ in range(2)]
    assert fit(base, tmp_path, TwoSizes(), OnCPU(), steps=1, compile=compilation)[0] == proven_and_run


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [(), ("--trainer.strategy.class_path=lightning_modules.FullySharded",)])
def test_two_ranks_that_begin_with_images_of_other_sizes_learn_what_they_learn_without(tmp_path, strategy):
    config = runs.prepare(tmp_path / "data", 3)
    make_dataset(tmp_path / "data/b", "b", {"train": runs.SHARDS["b"], "val": [3]}, size=(16, 32), normals=False)
    ends = []
    on_cpu = "--trainer.callbacks+=tests.lightning_modules.training.test_largest_first.OnCPU"
    for name, words in (("with", (*strategy, on_cpu)), ("without", strategy)):
        codes = runs.fit(tmp_path / name, config, "--data.val_batch_size=1", *words, world_size=2)
        assert codes == [0, 0], runs.log_of(tmp_path / name)
        ends.append(runs.last(tmp_path / name)["state_dict"])
    assert all(ends[0][name].equal(weight) for name, weight in ends[1].items())
