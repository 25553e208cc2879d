"""The planner's books agree with what PyTorch's allocator hands out in real steps of the toy base on the CPU."""

import gc

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from lightning_modules import Depth, SingleStepEstimator, StableDiffusion
from lightning_modules.networks.lora import LoRA
from lightning_modules.networks.weightless import without_weights
from lightning_modules.planning.simulated_step import Situation, make_batch, simulate

TOY = "checkpoints/tiny-stable-diffusion"
# As near as the planner has to come; who trusts a plan that is further off may buy a card that is too small.
TOLERANCE = 0.05
OPTIONS = {
    "as it is": {},
    "recomputed": {"unet_checkpointing": True, "decoder_checkpointing": True},
    "VAE in bfloat16": {"vae_precision": "bfloat16"},
    "channels last": {"channels_last": True},
    "adapters": {"lora": LoRA(4)},
}


def estimator_with(**options):
    return SingleStepEstimator(StableDiffusion(TOY, **options), Depth())


def measured_bytes(estimator, situation):
    """Weights and states, and the most that the allocator hands out beside them in two micro-batches and a step."""
    weights = [weight for weight in estimator.parameters() if weight.requires_grad]
    optimizer = estimator.make_optimizer(iter(weights))
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.zero_grad()
    estimator.network.train()
    gc.collect()
    states = [each for state in optimizer.state.values() for each in state.values()]
    held = {id(tensor): tensor for tensor in (*estimator.parameters(), *estimator.buffers(), *states)}
    static = sum(tensor.untyped_storage().nbytes() for tensor in held.values())
    precision = {"bf16-mixed": torch.bfloat16}.get(situation.precision, torch.float32)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        for _ in range(2):
            batch = make_batch(estimator, situation.batch_size, situation.image_size, situation.precision)
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
                loss, extras = estimator.training_loss(batch, [0] * situation.batch_size)
            loss.backward()
            del loss, extras, batch
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    assert most > 0
    return static, static + most


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_plan_agrees_with_the_memory_of_real_steps(name, precision):
    situation = Situation((64, 96), batch_size=4, micro_batches=2, precision=precision)
    static, real = measured_bytes(estimator_with(**OPTIONS[name]), situation)
    with without_weights():
        planned = simulate(estimator_with(**OPTIONS[name]), situation, for_gpu=False).peak_bytes
    print(f"{name}, {precision}: measured {real / 2**20:.1f} MiB, planned {planned / 2**20:.1f} MiB")
    assert abs(planned - real) < TOLERANCE * real
    assert planned > static, "activations are booked as well"


def test_a_plan_agrees_with_the_memory_of_a_small_real_step():
    situation = Situation((32, 32), batch_size=2, micro_batches=2)
    static, real = measured_bytes(estimator_with(), situation)
    with without_weights():
        planned = simulate(estimator_with(), situation, for_gpu=False).peak_bytes
    assert abs(planned - real) < TOLERANCE * real
    assert planned - static > 0.5 * (real - static)
