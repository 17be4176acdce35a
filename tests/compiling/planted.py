"""Kernels with one fault each, for which a check of compiled kernels must have eyes."""

from collections.abc import Iterator

import torch
import triton
import triton.language as tl

from engine.kernels.triton.launch import Launch, collect, launch


@triton.jit(do_not_specialize=["count"])
def good(x, out, count, SCALE: tl.constexpr, BLOCK: tl.constexpr):
    """out = SCALE · x. Grid: (count / BLOCK,)."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < count) * SCALE, mask=at < count)


@triton.jit
def product(x, y, out, SIZE: tl.constexpr, INNER: tl.constexpr):
    """out = x y of [SIZE, INNER] and [INNER, SIZE], held whole. Grid: (1,)."""
    i, k = tl.arange(0, SIZE), tl.arange(0, INNER)
    a = tl.load(x + i[:, None] * INNER + k[None, :])
    b = tl.load(y + k[:, None] * SIZE + i[None, :])
    tl.store(out + i[:, None] * SIZE + i[None, :], tl.dot(a, b))


@triton.jit
def wrong(x, out, BLOCK: tl.constexpr):
    """Adds what has no common shape. Grid: (1,)."""
    tl.store(out + tl.arange(0, BLOCK), tl.load(x + tl.arange(0, BLOCK)) + tl.arange(0, 2 * BLOCK))


def shipped_launches(capability: tuple[int, int]) -> Iterator[Launch]:
    """One launch that is right, though it comes thrice, and three that are not; for one card."""
    if capability != (9, 0):
        return
    x = torch.empty(4096, dtype=torch.float32, device="meta")
    narrow, wide = torch.empty(1 << 20, dtype=torch.float16, device="meta"), x
    with collect() as launches:
        for count in (4096, 1, 17):
            launch(good, (8,), x, x, count, SCALE=3.0, BLOCK=512)
        launch(product, (1,), narrow, narrow, wide, SIZE=64, INNER=64, num_warps=1, maxnreg=32)
        launch(product, (1,), narrow, narrow, wide, SIZE=128, INNER=512, num_warps=8)
        launch(wrong, (1,), x, x, BLOCK=16)
    yield from launches
