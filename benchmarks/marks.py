"""What a machine does at best: how fast it reads memory and multiplies 8-bit numbers."""

from time import perf_counter

import torch

from engine.config import ModelConfig
from engine.kernels.int8 import quantize_weight
from engine.kernels.native.linear import linear
from engine.kernels.native.weights import pack
from engine.kernels.reference.backend import ReferenceBackend


class Marks:
    """What the machine does at best, measured anew beside every step: machines drift.

    Args:
        config: whose shapes are multiplied.
        threads: CPU threads.
    """

    def __init__(self, config: ModelConfig, threads: int) -> None:
        torch.set_num_threads(threads)
        self._read = torch.full((2**28,), 1.0)  # 1 GiB, more than any cache
        rows, hidden, inner = 768, config.hidden_size, config.intermediate_size
        reference = ReferenceBackend()
        self._products = [
            (
                torch.randn(rows, inputs),
                pack(quantize_weight(reference, torch.randn(outputs, inputs))),
            )
            for inputs, outputs in ((hidden, inner), (inner, hidden), (hidden, hidden))
        ]
        self._threads = threads

    def bytes_per_second(self) -> float:
        """That all threads together read, summing what no cache holds."""
        began = perf_counter()
        self._read.sum()
        return self._read.nbytes / (perf_counter() - began)

    def flops_per_second(self) -> float:
        """Of the fastest int8 product of the model's shapes, rounding of rows included."""
        best = 0.0
        for x, weight in self._products:
            flops = 2 * x.shape[0] * weight.struct.inputs * weight.struct.outputs
            for _ in range(3):
                began = perf_counter()
                linear(x, weight, threads=self._threads)
                best = max(best, flops / (perf_counter() - began))
        return best
