"""The kernels in C as a backend."""

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.backend import Service
from engine.kernels.draws import Draws, Tokens
from engine.kernels.native import library, limits, rounding
from engine.kernels.native.cache import block_bytes
from engine.kernels.native.rotation import hadamard_, rotate_rows_, rotates, transforms
from engine.kernels.native.sampling import Drawing, draws_from
from engine.kernels.reference.backend import ReferenceBackend


class NativeBackend(ReferenceBackend):
    """What C computes by itself; the rest is the reference's.

    Decoder layers run in C as a whole (`engine.executors.native_decoder`) and call nothing of this.
    What is left beside them is loading the weights, and drawing tokens.

    Args:
        threads: CPU threads; ``None`` is torch's number.
    """

    name = "native"
    title = "the kernels in C"
    device_types = frozenset({"cpu"})

    def __init__(self, threads: int | None = None) -> None:
        super().__init__()
        self._threads = threads or torch.get_num_threads()
        self._drawing: Drawing | None = None

    def obstacle(self, model: ModelConfig, block_size: int, dtype: torch.dtype) -> str | None:
        """See `Backend`. Builds the kernels if need be: seconds, once a machine."""
        found = limits.obstacle(model, block_size, dtype)
        if found is None and not library.available():
            return "the kernels in C could not be built"
        return found

    def service(self, device: torch.device, dtype: torch.dtype) -> Service:
        """See `Backend`."""
        return Service(
            quantizations=("none", "int8", "int4"),
            cache_dtypes=(torch.float32, torch.bfloat16, torch.int8),
            preferred="int8",
            reason="as it is the fastest within 1% of bfloat16's perplexity",
        )

    def block_bytes(self, model: ModelConfig, block_size: int, cache_dtype: torch.dtype) -> int:
        """See `Backend`."""
        return block_bytes(model, block_size, cache_dtype)

    def rotate_rows(self, x: Tensor, by: Tensor, matrix: Tensor) -> Tensor:
        """See `Backend`; in place, where C can do it."""
        if not rotates(x, matrix):
            return super().rotate_rows(x, by, matrix)
        rotate_rows_(x, by, matrix, self._threads)
        return x

    def hadamard(self, x: Tensor, count: int, stride: int, scale: float) -> Tensor:
        """See `Backend`."""
        if not transforms(x, stride):
            return super().hadamard(x, count, stride, scale)
        transformed = x.clone()
        hadamard_(transformed, count, scale, self._threads)
        return transformed

    def quantize_channels(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """See `Backend`."""
        if not rounding.rounds(weight):
            return super().quantize_channels(weight)
        return rounding.quantize_channels(weight, self._threads)

    def draw(self, logits: Tensor, draws: Draws) -> Tokens:
        """See `Backend`. Memory to work in is kept from call to call."""
        if not draws_from(logits):
            return super().draw(logits, draws)
        vocab_size = logits.shape[1]
        if self._drawing is None or self._drawing.vocab_size != vocab_size:
            self._drawing = Drawing(vocab_size, self._threads)
        return self._drawing(logits, draws)
