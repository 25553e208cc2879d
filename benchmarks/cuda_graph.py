"""A function recorded as a CUDA graph: the GPU repeats its kernels without waiting for the host to launch each."""

from collections.abc import Callable

import torch
from torch import Tensor

_WARMUP_CALLS = 3


class CudaGraph:
    """Repeats a function of one tensor on inputs of one shape. For prediction: there is no gradient.

    Args:
        function: what to record. It must not wait for the device, and must do the same on every call.
        example: an input on the GPU; later ones must have its shape and type.
    """

    @torch.inference_mode()
    def __init__(self, function: Callable[[Tensor], Tensor], example: Tensor) -> None:
        self._input = example.clone()
        beside = torch.cuda.Stream(example.device)
        beside.wait_stream(torch.cuda.current_stream(example.device))
        with torch.cuda.stream(beside):
            for _ in range(_WARMUP_CALLS):  # what libraries set up on their first calls cannot be recorded
                function(self._input)
        torch.cuda.current_stream(example.device).wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._output = function(self._input)

    @torch.inference_mode()
    def __call__(self, signal: Tensor) -> Tensor:
        """Return what the function gives for an input.

        Args:
            signal: of the shape and type of the example.

        Raises:
            ValueError: it has another shape or type.
        """
        if signal.shape != self._input.shape or signal.dtype != self._input.dtype:
            wanted = f"{self._input.dtype} {tuple(self._input.shape)}"
            raise ValueError(f"the graph was recorded for {wanted}, not for {signal.dtype} {tuple(signal.shape)}.")
        self._input.copy_(signal)
        self._graph.replay()
        return self._output.clone()
