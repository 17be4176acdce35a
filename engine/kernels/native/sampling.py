"""Draws from rows of logits in C; see sampling.c."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.draws import DRAW, Draws
from engine.kernels.native.library import library


class Drawing:
    """`engine.kernels.draws.draw`, with its room kept from call to call.

    Args:
        vocab_size: length of a row.
        threads: CPU threads.
    """

    def __init__(self, vocab_size: int, threads: int) -> None:
        native = library()
        assert native is not None, "ask whether the kernels are available first"
        self._native, self._threads = native, threads
        self._room = torch.empty(threads * native.sample_room(vocab_size), dtype=torch.uint8)

    def __call__(self, logits: Tensor, draws: Draws) -> NDArray[np.int64]:
        """See `engine.kernels.draws.draw`; ``logits`` are contiguous and on the CPU."""
        assert draws.dtype == DRAW
        rows, vocab = logits.shape
        tokens: NDArray[np.int64] = np.empty(rows, dtype=np.int64)
        self._native.sample(
            logits.data_ptr(),
            rows,
            vocab,
            draws.ctypes.data,
            self._room.data_ptr(),
            tokens.ctypes.data,
            self._threads,
        )
        return tokens
