"""Draws from rows of logits in C; see sampling.c."""

import numpy as np
import torch
from torch import Tensor

from engine.kernels.draws import DRAW, Draws, Tokens
from engine.kernels.native.library import library


def draws_from(logits: Tensor) -> bool:
    """Whether `Drawing` can take these logits."""
    return logits.device.type == "cpu" and logits.is_contiguous()


class Drawing:
    """`engine.kernels.sampling.draw`, with its memory to work in kept from call to call.

    Args:
        vocab_size: length of a row; public.
        threads: CPU threads.
    """

    def __init__(self, vocab_size: int, threads: int) -> None:
        native = library()
        assert native is not None, "ask whether the kernels are available first"
        self.vocab_size = vocab_size
        self._native, self._threads = native, threads
        self._room = torch.empty(threads * native.sample_room(vocab_size), dtype=torch.uint8)

    def __call__(self, logits: Tensor, draws: Draws) -> Tokens:
        """See `engine.kernels.sampling.draw`; ask `draws_from` first."""
        assert draws.dtype == DRAW
        rows, vocab = logits.shape
        tokens: Tokens = np.empty(rows, dtype=np.int64)
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
