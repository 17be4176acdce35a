"""Attention in Triton against a naive one in float64, over caches whose unused places are NaN."""

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.kernels.fused.sharing import Sharing
from engine.kernels.fused.task_maker import AttentionShape
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.reference.fused import ReferenceFused
from engine.kernels.triton.attention import attention
from engine.kernels.triton.attention.attention import TritonAttention
from engine.kernels.triton.attention.tiles import TileConfig
from engine.kernels.triton.launch import INTERPRETED
from paging.scenes import DEVICE, Line, Scene, make_scene, naive_attention

CAPABILITY = torch.cuda.get_device_capability() if DEVICE.type == "cuda" else (9, 0)
EIGHT_BITS = [torch.int8, torch.float8_e4m3fn]
SHAPE = AttentionShape(
    heads=6,
    kv_heads=2,
    block_size=16,
    multiprocessors=1,
    prefill_rows=(16, 32),
    segment_rows=(16, 32),
    max_sequences=40,
    max_tokens=400,
)
EAGER = Sharing(min_keys=16, min_sequences=2, max_rows=64)
EVERYTHING = [Line(1, 40), Line(1, 150), Line(1, 1), Line(7, 7), Line(30, 61), Line(2, 100)]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles of 32 keys, so that short contexts have several."""
    monkeypatch.setattr(
        attention, "tile_config", lambda capability, phase, rows, shape: small_tile(rows)
    )


def small_tile(rows: int) -> TileConfig:
    return TileConfig(max(rows, 16), 32, 4, 2)


def run(scene: Scene, window: int | None = None, product: int = 0) -> Tensor:
    """The result on the CPU; out and the workspace are spoilt first."""
    tokens, heads, dim = scene.queries.shape
    kernels = TritonAttention(
        heads,
        scene.maker.shape.kv_heads,
        dim,
        scene.maker.max_pieces,
        CAPABILITY,
        DEVICE,
        product,
    )
    kernels._values.fill_(torch.nan)
    kernels._lse.fill_(torch.nan)
    out = torch.full((tokens, heads * dim), 7.0, dtype=scene.queries.dtype, device=DEVICE)
    kernels.attention(scene.queries, scene.cache, scene.step, scene.tasks, dim**-0.5, window, out)
    return out.cpu()


def check(scene: Scene, window: int | None = None, tolerance: float = 2e-5) -> None:
    found, expected = (
        run(scene, window),
        naive_attention(scene, scene.queries.shape[2] ** -0.5, window),
    )
    row = 0
    for line in scene.lines:
        rows = slice(row, row + line.new)
        if line.context:
            torch.testing.assert_close(
                found[rows].double(), expected[rows], atol=tolerance, rtol=tolerance
            )
        else:
            assert ((found[rows] == 7) | (found[rows] == 0)).all()
        row += line.new
    assert (found[row:] == 7).all()


def test_decodes_at_the_edges_of_blocks_and_padding() -> None:
    lines = [Line(1, context) for context in (1, 15, 16, 17, 31, 32, 33, 64)]
    check(make_scene([*lines, Line(1, 0), Line(0, 0)], SHAPE, 16, decodes=10))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_batch_of_everything(dtype: torch.dtype) -> None:
    scene = make_scene(EVERYTHING, SHAPE, 16, dtype=dtype, padding=3)
    check(scene, tolerance=2e-5 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize(("window", "multiprocessors"), [(1, 1), (31, 1), (50, 3), (1000, 3)])
def test_windows(window: int, multiprocessors: int) -> None:
    shape = replace(SHAPE, window=window, multiprocessors=multiprocessors)
    front = (("front", 2),)
    lines = [replace(line, shares=front) for line in EVERYTHING if line.context > 60]
    lines = [Line(1, 290, front), Line(1, 0), *lines]
    scene = make_scene(lines, shape, 16, sharing=EAGER)
    assert scene.tasks.segment_tiles > 0, "segments that a layer with a window passes over"
    check(scene, window)
    check(scene)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "block_size"),
    [
        (4, 4, 32, 1),
        (6, 1, 40, 128),
        (20, 1, 16, 2),
        (10, 2, 24, 64),
        (9, 3, 64, 32),
        (1, 1, 128, 4),
    ],
)
def test_shapes(heads: int, kv_heads: int, dim: int, block_size: int) -> None:
    shape = replace(
        SHAPE, heads=heads, kv_heads=kv_heads, block_size=block_size, prefill_rows=(32,),
        segment_rows=(32,), multiprocessors=2,
    )  # fmt: skip
    front = (("front", -(-64 // block_size)),)
    lines = [Line(1, 150, front), Line(1, 131, front), Line(1, 2), Line(9, 47), Line(1, 140, front)]
    check(make_scene(lines, shape, dim, sharing=EAGER))


@pytest.mark.parametrize("multiprocessors", [1, 5, 10])
def test_splits_are_merged(multiprocessors: int) -> None:
    front = (("front", 5),)
    lines = [Line(1, 900, front), Line(1, 0), Line(1, 385, front), Line(5, 60)]
    shape = replace(SHAPE, multiprocessors=multiprocessors)
    scene = make_scene(lines, shape, 16, sharing=EAGER)
    assert scene.tasks.splits == {1: 1, 5: 4, 10: 8}[multiprocessors]
    check(scene)


TREE = [
    *(Line(1, 60 + i, (("root", 3),)) for i in range(3)),
    Line(1, 20),
    Line(1, 0),
    *(Line(1, 90 + 7 * i, (("root", 3), ("left", 2))) for i in range(4)),
    Line(4, 60, (("root", 3),)),
    Line(3, 95, (("root", 3), ("left", 2))),
    Line(30, 130, (("root", 3), ("left", 2))),
]
"""Sequences of unlike lengths on two levels; the last has more rows than may share."""


@pytest.mark.parametrize(("multiprocessors", "shared_pieces"), [(1, None), (6, None), (1, 12)])
def test_segments_on_two_levels(multiprocessors: int, shared_pieces: int | None) -> None:
    shape = replace(SHAPE, multiprocessors=multiprocessors)
    scene = make_scene(TREE, shape, 16, sharing=EAGER, shared_pieces=shared_pieces)
    shared = scene.host["shared"].tolist()[: len(TREE)]
    if shared_pieces is None:
        assert shared == [48, 48, 48, 0, 0, 80, 80, 80, 80, 48, 80, 0]
    else:
        assert max(shared) < 80, "there is no room for all segments"
    check(scene)


def test_segments_are_cut_where_they_are_long() -> None:
    shape = replace(SHAPE, multiprocessors=30)
    lines = [Line(1, 300 + i, (("front", 18),)) for i in range(3)]
    scene = make_scene(lines, shape, 16, sharing=EAGER)
    assert (scene.host["pieces"][1:6:2] == 3).all()
    check(scene)


@pytest.mark.parametrize("seed", range(4))
def test_random_batches(seed: int) -> None:
    source = random.Random(seed)
    tree = [(), (("a", 2),), (("a", 2), ("b", 1)), (("a", 2), ("c", 3)), (("d", 4),)]
    lines = []
    for index in range(source.randrange(1, 12)):
        shares = source.choice(tree)
        count = 1 if index < 6 else source.randrange(1, 9)
        front = 16 * sum(blocks for _, blocks in shares)
        lines.append(Line(count, front + count + source.randrange(60), shares))
    shape = replace(SHAPE, multiprocessors=source.choice((1, 6)), window=20)
    scene = make_scene(lines, shape, 16, sharing=EAGER, padding=source.randrange(3))
    check(scene)
    check(scene, window=20)


@pytest.mark.parametrize(
    ("cache_dtype", "multiprocessors"), [(torch.int8, 1), (torch.float8_e4m3fn, 3)]
)
def test_caches_of_8_bits_are_widened_without_a_loss(
    cache_dtype: torch.dtype, multiprocessors: int
) -> None:
    shape = replace(SHAPE, multiprocessors=multiprocessors)
    lines = [*TREE[:6], Line(1, 150), *TREE[9:11]]
    scene = make_scene(lines, shape, 16, cache_dtype=cache_dtype, sharing=EAGER)
    check(scene)


@pytest.mark.parametrize(
    ("cache_dtype", "product", "most"),
    [
        (torch.int8, 1, 0.01),
        (torch.int8, 2, 0.015),
        (torch.float8_e4m3fn, 1, 0.06),
        (torch.float8_e4m3fn, 2, 0.08),
    ],
)
def test_products_in_8_bits_err_as_little_as_their_rounding(
    cache_dtype: torch.dtype, product: int, most: float
) -> None:
    lines = [*TREE[:6], Line(1, 150), *TREE[9:11]]
    scene = make_scene(lines, SHAPE, 32, cache_dtype=cache_dtype, sharing=EAGER)
    expected = naive_attention(scene, 32**-0.5, None)
    live = torch.tensor([line.context > 0 for line in lines for _ in range(line.new)])
    found = run(scene, product=product).double()
    error = (found[live] - expected[live]).norm() / expected[live].norm()
    assert 1e-4 < error < most, "it must differ from the exact one, but not by much"


def test_rows_of_zeros_and_large_scores() -> None:
    scene = make_scene(EVERYTHING, SHAPE, 16, cache_dtype=torch.int8)
    scene.queries[0] = 0
    scene.queries[1:] *= 300
    check(scene, tolerance=1e-4)
    scene.queries[1:] /= 300
    assert torch.isfinite(run(scene, product=2)).all()


def test_it_agrees_with_the_oracle() -> None:
    scene = make_scene(TREE, SHAPE, 16, sharing=EAGER)
    scene.cache.keys.nan_to_num_(0)
    scene.cache.values.nan_to_num_(0)
    out = torch.full((scene.queries.shape[0], 6 * 16), 7.0, device=DEVICE)
    tasks = AttentionTasks(scene.tasks.num_decodes, scene.tasks.num_prefills, 111)
    ReferenceFused().attention(scene.queries, scene.cache, scene.step, tasks, 0.25, None, out)
    torch.testing.assert_close(run(scene), out.cpu(), atol=2e-5, rtol=2e-5)


def test_one_graph_serves_every_step_of_a_bucket() -> None:
    """Equal launches over other contents of the same arrays: nothing else is read."""
    shape = replace(SHAPE, multiprocessors=8)
    first = make_scene([Line(1, 300), Line(1, 9), Line(1, 0), Line(1, 0)], shape, 16)
    second = make_scene([Line(1, 280), Line(1, 1), Line(1, 399), Line(1, 0)], shape, 16)
    assert first.tasks.launches == second.tasks.launches
    second.tasks = replace(first.tasks, arrays=second.tasks.arrays)
    check(second)


def test_tasks_without_arrays_or_for_a_narrower_window_are_refused() -> None:
    scene = make_scene([Line(1, 5)], replace(SHAPE, window=4), 16)
    with pytest.raises(ValueError, match="window of 5 keys"):
        run(scene, window=5)
    scene.tasks = replace(scene.tasks, arrays=None)
    with pytest.raises(ValueError, match="no arrays"):
        run(scene)


@pytest.mark.skipif(INTERPRETED, reason="the interpreter multiplies the bits of bfloat16")
@pytest.mark.parametrize("cache_dtype", [torch.bfloat16, *EIGHT_BITS])
@pytest.mark.parametrize("block_size", [16, 128])
def test_bfloat16_with_the_tiles_of_the_device(
    monkeypatch: pytest.MonkeyPatch, cache_dtype: torch.dtype, block_size: int
) -> None:
    monkeypatch.undo()
    shape = replace(
        SHAPE, heads=8, kv_heads=2, block_size=block_size, prefill_rows=(32, 128),
        segment_rows=(32, 64, 128), multiprocessors=132,
    )  # fmt: skip
    front = (("front", 512 // block_size),)
    lines = [Line(1, 700 + i, front) for i in range(9)] + [Line(1, 3000), Line(150, 1100)]
    scene = make_scene(lines, shape, 128, dtype=torch.bfloat16, cache_dtype=cache_dtype)
    assert scene.tasks.segment_tiles > 0
    check(scene, tolerance=2e-2)
