"""Attention in Triton against a naive one in float64."""

from dataclasses import replace

import pytest
import torch
from paging import DEVICE, Line, Scene, make_scene, naive_attention

pytest.importorskip("triton")

from engine.kernels.fused.sharing import Sharing
from engine.kernels.fused.task_maker import AttentionShape
from engine.kernels.triton.attention.attention import TritonAttention

CAPABILITY = (9, 0)
SHAPE = AttentionShape(
    heads=9, kv_heads=3, block_size=16, multiprocessors=1, prefill_rows=(16, 32),
    segment_rows=(16, 32), max_sequences=40, max_tokens=400,
)  # fmt: skip
EAGER = Sharing(min_keys=16, min_sequences=2, max_rows=64)


def check(
    scene: Scene, window: int | None = None, tolerance: float = 2e-5, product: int = 0
) -> None:
    shape = scene.maker.shape
    tokens, heads, dim = scene.queries.shape
    kernels = TritonAttention(
        heads, shape.kv_heads, dim, scene.maker.max_pieces, CAPABILITY, DEVICE, product
    )
    kernels._values.fill_(torch.nan)
    kernels._lse.fill_(torch.nan)
    out = torch.full((tokens, heads * dim), 7.0, dtype=scene.queries.dtype, device=DEVICE)
    scale = dim**-0.5
    kernels.attention(scene.queries, scene.cache, scene.step, scene.tasks, scale, window, out)
    expected = naive_attention(scene, scale, window)
    row = 0
    for line in scene.lines:
        found = out[row : row + line.new].cpu().double()
        if line.context:
            torch.testing.assert_close(
                found, expected[row : row + line.new], atol=tolerance, rtol=tolerance
            )
        else:
            assert ((found == 7) | (found == 0)).all()
        row += line.new
    assert (out[row:] == 7).all()


@pytest.mark.parametrize("context", [1, 15, 16, 17, 127, 128, 129, 300])
def test_decodes_at_the_edges_of_blocks(context: int) -> None:
    check(make_scene([Line(1, context), Line(1, 5), Line(1, 0)], SHAPE, 16))


def test_a_batch_of_everything() -> None:
    lines = [Line(1, 40), Line(1, 300), Line(1, 1), Line(7, 7), Line(30, 61), Line(2, 200)]
    check(make_scene(lines, SHAPE, 16, padding=3))


def test_segments_on_two_levels() -> None:
    root, left = ("root", 3), ("left", 2)
    lines = [Line(1, 60 + i, (root,)) for i in range(3)]
    lines += [Line(1, 90 + 7 * i, (root, left)) for i in range(4)]
    lines += [Line(4, 60, (root,)), Line(3, 95, (root, left)), Line(20, 130, (root, left))]
    scene = make_scene(lines, SHAPE, 16, sharing=EAGER)
    assert scene.tasks.segment_tiles > 0
    check(scene)
    check(make_scene(lines, replace(SHAPE, multiprocessors=20), 16, sharing=EAGER))
