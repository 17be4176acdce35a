"""However large a step is, no launch needs more programs in a dimension than a device has."""

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.kernels.fused.kernels import activations
from engine.kernels.fused.sampling import (
    REPORT_WIDTH,
    Column,
    SampledRows,
    SamplerTensors,
    Workspace,
)
from engine.kernels.fused.task_maker import AttentionShape, TaskMaker
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import LayerCache, StepTensors
from engine.kernels.fused.weights import Float8Weight, Int4Weight
from engine.kernels.int8 import Int8Weight
from engine.kernels.rope import RotaryTable
from engine.kernels.triton.attention.attention import TritonAttention
from engine.kernels.triton.attention.pieces import merge_kernel
from engine.kernels.triton.attention.tiles import row_choices
from engine.kernels.triton.launch import LARGEST_GRID, Launch, collect, launch
from engine.kernels.triton.passes.passes import TritonPasses
from engine.kernels.triton.products.products import TritonProducts
from engine.kernels.triton.sampling.sampling import TritonSampling
from paging.scenes import DEVICE

META = torch.device("meta")
TOKENS, SEQUENCES = 1 << 20, 100_000
HEADS, KV_HEADS, DIM = 28, 4, 128  # 7 heads of a KV head: tiles of few tokens
HIDDEN, INNER, VOCAB = 3584, 18_944, 152_064


def meta(*size: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.empty(size, dtype=dtype, device=META)


def ints(*size: int) -> Tensor:
    return meta(*size, dtype=torch.int32)


def launched_by_passes() -> list[Launch]:
    kernels, index = TritonPasses(), ints(TOKENS)
    residual = meta(TOKENS, HIDDEN, dtype=torch.float32)
    angles = meta(TOKENS, DIM // 2, dtype=torch.float32)
    rotary = RotaryTable(angles, angles, meta(DIM // 2, dtype=torch.float32))
    keys = meta(16, 16, KV_HEADS, DIM)
    step = StepTensors(index, index, index, index, index, index, ints(SEQUENCES, 16))
    qkv = meta(TOKENS, (HEADS + 2 * KV_HEADS) * DIM)
    with collect() as launches:
        kernels.embed(index, index, meta(VOCAB, HIDDEN), residual)
        for dtype in (torch.bfloat16, torch.int8):
            out = activations(TOKENS, HIDDEN, dtype, META)
            kernels.add_norm(None, residual, meta(HIDDEN), 1e-5, out)
            inner = activations(TOKENS, INNER, dtype, META)
            kernels.gate(meta(TOKENS, 2 * INNER), inner)
            kernels.round_rows(meta(TOKENS, HIDDEN), out)
        queries = meta(TOKENS, HEADS, DIM)
        kernels.rotate_and_store(qkv, None, rotary, step, LayerCache(keys, keys), queries)
    return launches


def launched_by_products() -> list[Launch]:
    launches = []
    packed = ints(INNER // 128, HIDDEN, 64).to(torch.uint8)
    scales = meta(INNER // 128, HIDDEN, dtype=torch.float16)
    channels = meta(HIDDEN, dtype=torch.float32)
    for capability in ((8, 0), (9, 0)):
        for weight in (
            Int8Weight(meta(HIDDEN, INNER, dtype=torch.int8), channels),
            Float8Weight(meta(HIDDEN, INNER, dtype=torch.float8_e4m3fn), channels),
            Int4Weight(packed, scales, scales, HIDDEN, INNER, 128),
        ):
            products = TritonProducts(META, torch.bfloat16, TOKENS, capability=capability)
            products.pack(weight)
            kind = torch.bfloat16 if isinstance(weight, Int4Weight) else weight.values.dtype
            for rows in (16, 256, TOKENS):
                x = activations(rows, INNER, kind, META)
                with collect() as some:
                    products.product(x, weight, None, meta(rows, HIDDEN))
                launches += some
    return launches


def launched_by_sampling() -> list[Launch]:
    kernels, index = TritonSampling(), ints(SEQUENCES)
    rows = SampledRows(meta(SEQUENCES, VOCAB, dtype=torch.float32), index, index, index)
    table = ints(SEQUENCES, len(Column))
    state = SamplerTensors(table, index, ints(SEQUENCES, VOCAB), ints(SEQUENCES, 128))
    room = Workspace(SEQUENCES, VOCAB, META)
    with collect() as launches:
        for adjusted in (False, True):
            for filtered in (False, True):
                kernels.draw(rows, state, room, adjusted=adjusted, filtered=filtered)
        kernels.report(rows, state, room, ints(SEQUENCES, REPORT_WIDTH))
    return launches


def launched_by_attention() -> list[Launch]:
    """A prompt of a million tokens, divided as the host divides it, and a great many decodes."""
    group = HEADS // KV_HEADS
    prefill_rows, segment_rows = row_choices((8, 0), group, DIM)
    maker = TaskMaker(
        AttentionShape(HEADS, KV_HEADS, 16, 108, prefill_rows, segment_rows, 64, TOKENS)
    )
    arrays = {name: np.zeros(size, np.int32) for name, size in maker.sizes.items()}
    table = np.arange(TOKENS // 16, dtype=np.int32)[None]
    one = np.zeros(1, np.int32)
    tasks = [maker.make(arrays, np.array([0, TOKENS], np.int32), one + TOKENS, one, table, 0)]
    assert tasks[0].prefill_tiles > LARGEST_GRID[1]
    tasks += [
        AttentionTasks(SEQUENCES, 0, TOKENS, splits=splits, segment_rows=32, segment_tiles=tiles)
        for splits in (1, 32)
        for tiles in (0, SEQUENCES)
    ]
    kernels = TritonAttention(HEADS, KV_HEADS, DIM, 4, (8, 0), META)
    keys, index = meta(4, 16, KV_HEADS, DIM), ints(32)
    step = StepTensors(index, index, index, index, index, index, ints(16, 64))
    names = (*maker.sizes,)
    queries = meta(TOKENS, HEADS, DIM)
    with collect() as launches:
        for each in tasks:
            divided = each.on(dict.fromkeys(names, index))
            cache = LayerCache(keys, keys)
            kernels.attention(queries, cache, step, divided, 0.1, None, queries.flatten(1))
    return launches


@pytest.mark.parametrize(
    ("launches", "kernels"),
    [
        (launched_by_passes, {"embed", "add_norm", "convert_rows", "round_rows"}),
        (launched_by_products, {"eight_bit_product", "four_bit_product", "group_sums", "unpack"}),
        (launched_by_sampling, {"race", "settle", "tally", "gather", "pick", "report_chunks"}),
        (launched_by_attention, {"prefill_kernel", "decode_kernel", "segment_kernel"}),
    ],
)
def test_grids_fit_whatever_a_step_holds(launches: object, kernels: set[str]) -> None:
    assert callable(launches)
    found: list[Launch] = launches()
    assert kernels <= {each.kernel.__name__ for each in found}
    for each in found:
        assert all(each.grid), each.kernel.__name__
        sizes = zip(each.grid, LARGEST_GRID, strict=False)
        assert all(count <= most for count, most in sizes), (each.kernel.__name__, each.grid)


def test_a_grid_that_no_device_launches_is_refused_with_its_kernels_name() -> None:
    with collect() as launches:
        launch(merge_kernel, (2**31 - 1, 65_535))
        for grid in ((2**31,), (1, 65_536), (1, 1, 65_536)):
            with pytest.raises(ValueError, match=r"merge_kernel was to be launched with \("):
                launch(merge_kernel, grid)
    assert len(launches) == 1


def test_a_row_whose_numbers_lie_beyond_32_bits_is_read_and_written_in_its_place() -> None:
    heads, dim, window, token = 32, 128, 6, 2**19 + 2  # 2³¹ numbers lie before it
    count = token + 1
    # Most of it is never touched, and takes no memory.
    queries = torch.empty(count, heads, dim, dtype=torch.float16, device=DEVICE)
    queries[token] = query = torch.randn(heads, dim, dtype=torch.float16).to(DEVICE)
    keys, values = (torch.randn(1, 16, 1, dim, dtype=torch.float16).to(DEVICE) for _ in range(2))

    def index(*numbers: int) -> Tensor:
        return torch.tensor(numbers, dtype=torch.int32, device=DEVICE)

    table = torch.zeros(1, -(-count // 16), dtype=torch.int32, device=DEVICE)
    none = index(0)
    step = StepTensors(none, none, none, index(0, count), index(count), none, table)
    names = ("split_keys", "window_split_keys", "shared", "pieces", "segment_tiles", "members")
    tasks = AttentionTasks(0, 1, 0, prefill_rows=32, prefill_tiles=1, window=window).on(
        dict.fromkeys(names, none) | {"prefill_tiles": index(0, token)}
    )
    kernels = TritonAttention(heads, 1, dim, 1, (9, 0), DEVICE)
    out = queries.view(count, -1)  # each program reads its rows before it writes them
    kernels.attention(queries, LayerCache(keys, values), step, tasks, dim**-0.5, window, out)
    seen = [n % 16 for n in range(count - window, count)]
    scores = query.float() @ keys[0, seen, 0].float().T * dim**-0.5
    expected = scores.softmax(-1) @ values[0, seen, 0].float()
    torch.testing.assert_close(out[token].view(heads, dim).float(), expected, rtol=0, atol=4e-3)
