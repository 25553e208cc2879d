"""A part that is compiled wrongly ends a run before its first step; one that is right leaves no trace.

The tolerance: compiled parts in float32 were at most 3e-6 from plain ones (toy networks, aot_eager and inductor on a
CPU). A gradient that is lost is 1 away.
"""

import pytest
import torch
from lightning.pytorch import Callback
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters

from geometry.batch import Target
from geometry.errors import InputError
from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.networks.compilation import Compilation
from lightning_modules.networks.lora import LoRA
from tests.helpers.tiny import TinyData, build_base
from tests.lightning_modules.test_estimator import make_trainer, trained_weights

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return build_base(tmp_path_factory.mktemp("base"), vae_factor=2)


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def plain_graph(graph, inputs):
    return graph.forward


def lose_the_gradient(graph, inputs):
    """Compile a backward pass that comes out as zeros, as torch 2.13 does."""
    return lambda *args: [torch.zeros_like(g) if g is not None else None for g in graph.forward(*args)]


def make_estimator(base, compile, **options):
    return SingleStepEstimator(StableDiffusion(str(base), compile=compile, **options), Depth())


def compile_wrongly(estimator, part, **compilers):
    module = estimator.network.compilable_parts()[part]
    module.compile(backend=aot_autograd(**{"fw_compiler": plain_graph, **compilers}))


@pytest.mark.parametrize("part", ["decoder", "unet"])
def test_a_gradient_that_the_compiler_loses_ends_the_run_before_its_first_step(base, tmp_path, part):
    estimator = make_estimator(base, None)
    compile_wrongly(estimator, part, bw_compiler=lose_the_gradient)
    before = trained_weights(estimator)
    with pytest.raises(InputError, match=f"the compiled {part} is wrong .* on images of 16x16 pixels"):
        make_trainer(tmp_path).fit(estimator, TinyData(size=16))
    assert torch.equal(trained_weights(estimator), before)


def fail_to_compile(graph, inputs):
    raise ImportError("cache/x.so: file too short")


def test_a_compiler_that_fails_is_one_line_with_the_remedy(base, tmp_path):
    estimator = make_estimator(base, None)
    compile_wrongly(estimator, "decoder", fw_compiler=fail_to_compile)
    with pytest.raises(
        InputError, match=r"the decoder cannot be compiled here \(.*file too short.*TORCHINDUCTOR_CACHE"
    ):
        make_trainer(tmp_path, 2).fit(estimator, TinyData())


def test_an_encoder_that_is_compiled_wrongly_ends_the_run_too(base, tmp_path):
    def off(graph, inputs):
        return lambda *args: [output * 1.1 for output in graph.forward(*args)]

    estimator = make_estimator(base, None)
    compile_wrongly(estimator, "encoder", fw_compiler=off, inference_compiler=off)
    with pytest.raises(InputError, match="the compiled encoder is wrong"):
        make_trainer(tmp_path).fit(estimator, TinyData(size=16))


class Shapes(Callback):
    """Lets the second batch be of another size."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            batch.image = batch.image[..., :12]
            batch.targets = {name: Target(*(t[..., :12] for t in target)) for name, target in batch.targets.items()}


def test_a_proof_leaves_no_trace_in_the_run_and_costs_no_compilation_of_its_own(base, tmp_path):
    ends = {}
    for proven in (True, False):
        torch._dynamo.reset()
        counters.clear()
        torch.manual_seed(3)
        estimator = make_estimator(
            base, Compilation(backend="eager", dynamic=False, parts=["decoder"]), lora=LoRA(rank=2, dropout=0.5)
        )
        if not proven:
            estimator.compilation_proof.check = lambda *_: None
        trainer = make_trainer(tmp_path / str(proven), callbacks=[Shapes()], max_steps=2)
        trainer.fit(estimator, TinyData(size=16, modalities=["depth"]))
        weights = torch.cat([p.detach().flatten() for p in estimator.parameters() if p.requires_grad])
        ends[proven] = (weights, torch.get_rng_state(), torch.tensor(counters["stats"]["unique_graphs"]))
    for with_proof, without in zip(ends[True], ends[False], strict=True):
        assert torch.equal(with_proof, without)
