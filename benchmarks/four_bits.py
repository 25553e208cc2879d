"""Libraries that keep frozen weights in 4 bits under adapters, compared on this machine's CPU.

    python -m benchmarks.four_bits

For each: the error that 4 bits make of normally distributed weights, how far output and gradients are from those of the
dequantised weights, and the median time of a forward and backward pass. A library that is not installed, or does not
compute on a CPU, is one line. torchao is no dependency: pip install torchao.
"""

import copy
import time
from collections.abc import Callable
from importlib.metadata import version

import torch
from torch import Tensor, nn

_WIDTH = 1024
_RANK = 16
_TOKENS = 256
_REPETITIONS = 7


class Adapted(nn.Module):
    """A frozen layer with a low-rank adapter beside it.

    Args:
        layer: the layer.
        generator: of the adapter's weights.
    """

    def __init__(self, layer: nn.Module, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(torch.randn(_RANK, _WIDTH, generator=generator) / _WIDTH**0.5)
        self.up = nn.Parameter(torch.randn(_WIDTH, _RANK, generator=generator) / _WIDTH**0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return (N,W) for (N,W)."""
        return self.layer(tokens) + tokens @ self.down.T @ self.up.T


def step(module: Adapted, tokens: Tensor) -> list[Tensor]:
    """Return output, gradient of the input and gradient of the adapter."""
    tokens = tokens.clone().requires_grad_()
    module.zero_grad()
    output = module(tokens)
    output.square().mean().backward()
    assert tokens.grad is not None and module.down.grad is not None
    return [output.detach(), tokens.grad, module.down.grad]


def relative(found: Tensor, expected: Tensor) -> float:
    """Return the norm of a difference as a share of the norm of what is expected."""
    return float((found - expected).norm() / expected.norm())


def milliseconds(module: Adapted, tokens: Tensor) -> float:
    """Return the median time of a step."""
    times = []
    for _ in range(_REPETITIONS):
        start = time.perf_counter()
        step(module, tokens)
        times.append(time.perf_counter() - start)
    return 1000 * sorted(times)[_REPETITIONS // 2]


def bitsandbytes_nf4(layer: nn.Linear) -> tuple[nn.Module, Tensor]:
    """Return what this project uses."""
    from lightning_modules.networks.quantization import dequantize, quantize

    held = nn.Sequential(layer)
    quantize([held])
    plain = copy.deepcopy(held)
    dequantize(plain)
    return held, plain[0].weight


def torchao_nf4(layer: nn.Linear) -> tuple[nn.Module, Tensor]:
    """Return torchao's tensor of NF4 in an ordinary layer."""
    from torchao.quantization import to_nf4

    layer.weight = nn.Parameter(to_nf4(layer.weight.data, 64, 256), requires_grad=False)
    return layer, layer.weight.get_original_weight()


def torchao_int4(packing: str) -> Callable[[nn.Linear], tuple[nn.Module, Tensor]]:
    """Return what makes torchao's int4, weights alone, in a packing."""

    def make(layer: nn.Linear) -> tuple[nn.Module, Tensor]:
        from torchao.quantization import Int4WeightOnlyConfig, quantize_

        held = nn.Sequential(layer.bfloat16())
        quantize_(held, Int4WeightOnlyConfig(group_size=64, int4_packing_format=packing))
        return held, held[0].weight.dequantize()

    return make


CANDIDATES = {
    ("bitsandbytes", "nf4"): bitsandbytes_nf4,
    ("torchao", "nf4"): torchao_nf4,
    ("torchao", "int4 plain"): torchao_int4("plain"),
    ("torchao", "int4 plain_int32"): torchao_int4("plain_int32"),
    ("torchao", "int4 tile_packed_to_4d"): torchao_int4("tile_packed_to_4d"),
}


def compare(library: str, make: Callable[[nn.Linear], tuple[nn.Module, Tensor]]) -> str:
    """Return a line about one candidate."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(_WIDTH, _WIDTH).requires_grad_(False)
    layer.weight.normal_(std=_WIDTH**-0.5, generator=generator)
    tokens = torch.randn(_TOKENS, _WIDTH, generator=generator)
    try:
        held, weight = make(copy.deepcopy(layer))
        small = Adapted(held, generator.manual_seed(1))
        found = step(small, tokens)
    except Exception as error:  # whatever a library raises that does not compute here
        return f"does not run on this CPU ({type(error).__name__}: {' '.join(str(error).split())[:90]})"
    error_of_weights = relative(weight.float(), layer.weight)
    plain = copy.deepcopy(layer)
    plain.weight = nn.Parameter(weight.float(), requires_grad=False)
    expected = step(Adapted(plain, generator.manual_seed(1)), tokens)
    far = max(relative(*pair) for pair in zip(found, expected, strict=True))
    return (
        f"{version(library)}: error of the weights {error_of_weights:.4f}, output and gradients within {far:.1e} of "
        f"those of the dequantised weights, {milliseconds(small, tokens):.1f} ms a step"
    )


def main() -> None:
    """Print a line for plain weights and one for each candidate."""
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    plain = Adapted(nn.Linear(_WIDTH, _WIDTH).requires_grad_(False), generator)
    print(f"float32: {milliseconds(plain, torch.randn(_TOKENS, _WIDTH, generator=generator)):.1f} ms a step")
    for (library, kind), make in CANDIDATES.items():
        print(f"{library} {kind} {compare(library, make)}")


if __name__ == "__main__":
    main()
