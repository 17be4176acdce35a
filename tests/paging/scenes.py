"""Random steps over a paged cache whose sequences may share blocks, and their attention by hand."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engine.kernels.fused.sharing import Sharing
from engine.kernels.fused.task_maker import AttentionShape, TaskMaker
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import LayerCache, StepTensors
from engine.kernels.triton.launch import INTERPRETED

DEVICE = torch.device("cuda" if torch.cuda.is_available() and not INTERPRETED else "cpu")
LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}


@dataclass(frozen=True)
class Line:
    """A sequence of a step.

    Attributes:
        new: its tokens in the step.
        context: keys it sees, the new ones included.
        shares: (name, blocks) of the runs its table begins with; equal names are equal blocks.
    """

    new: int
    context: int
    shares: tuple[tuple[str, int], ...] = ()


@dataclass
class Scene:
    """A step in a random cache: what a kernel gets, and where each sequence's keys lie."""

    queries: Tensor
    cache: LayerCache
    step: StepTensors
    maker: TaskMaker
    tasks: AttentionTasks
    lines: list[Line]
    blocks: list[list[int]]
    host: dict[str, np.ndarray] = field(default_factory=dict)


def make_scene(
    lines: Sequence[Line],
    shape: AttentionShape,
    dim: int,
    *,
    dtype: torch.dtype = torch.float32,
    cache_dtype: torch.dtype | None = None,
    decodes: int | None = None,
    sharing: Sharing | None = None,
    shared_pieces: int | None = None,
    padding: int = 0,
) -> Scene:
    """Lay the sequences out; every block number, key and query is random, unused places are NaN.

    Args:
        lines: the sequences; a context of 0 is padding.
        shape: limits and tiles.
        dim: head_dim.
        dtype, cache_dtype: of the model, and of the cache if it is another.
        decodes: sequences at the front that are decodes; ``None`` counts those with one token.
        sharing, shared_pieces: see `TaskMaker`.
        padding: rows of padding behind the step's tokens.
    """
    generator = torch.Generator().manual_seed(sum(line.context * 7 + line.new for line in lines))
    size = shape.block_size
    named = {name: count for line in lines for name, count in line.shares}
    own = [
        max(-(-line.context // size) - sum(count for _, count in line.shares), 0) for line in lines
    ]
    total = sum(named.values()) + sum(own) + 3
    order = torch.randperm(total, generator=generator).tolist()
    shared = {name: [order.pop() for _ in range(count)] for name, count in named.items()}
    blocks = []
    for line, count in zip(lines, own, strict=True):
        front = [block for name, _ in line.shares for block in shared[name]]
        blocks.append(front + [order.pop() for _ in range(count)])
    used = torch.zeros(total, size, dtype=torch.bool)
    for line, row in zip(lines, blocks, strict=True):
        for place in range(line.context):
            used[row[place // size], place % size] = True
    cache = make_cache(used, shape.kv_heads, dim, cache_dtype or dtype, generator)
    slots = torch.randperm(len(lines) + 2, generator=generator)[: len(lines)].tolist()
    columns = max((len(row) for row in blocks), default=0) + 1
    tables = np.full((len(lines) + 2, columns), order[0], np.int32)
    for slot, row in zip(slots, blocks, strict=True):
        tables[slot, : len(row)] = row
    starts = np.cumsum([0] + [line.new for line in lines]).astype(np.int32)
    contexts = np.array([line.context for line in lines], np.int32)
    host_slots = np.array(slots, np.int32)
    tokens = int(starts[-1]) + padding
    queries = torch.randn(tokens, shape.heads, dim, generator=generator).to(DEVICE, dtype)
    if decodes is None:
        decodes = next((i for i, line in enumerate(lines) if line.new != 1), len(lines))
    maker = TaskMaker(shape, sharing, shared_pieces)
    arrays = {name: np.full(count, 10**6, np.int32) for name, count in maker.sizes.items()}
    tasks = maker.make(arrays, starts, contexts, host_slots, tables, decodes)
    index = [torch.from_numpy(x).to(DEVICE) for x in (starts, contexts, host_slots, tables)]
    none = torch.zeros(0, dtype=torch.int32, device=DEVICE)
    return Scene(
        queries,
        cache,
        StepTensors(none, none, none, *index),
        maker,
        tasks.on({name: torch.from_numpy(x).to(DEVICE) for name, x in arrays.items()}),
        list(lines),
        blocks,
        {**arrays, "query_start": starts, "contexts": contexts, "slots": host_slots},
    )


def make_cache(
    used: Tensor, kv_heads: int, dim: int, dtype: torch.dtype, generator: torch.Generator
) -> LayerCache:
    """Random keys and values where ``used``, what spoils a result elsewhere."""
    found: list[tuple[Tensor, Tensor | None]] = []
    for _ in range(2):
        x = torch.randn(*used.shape, kv_heads, dim, generator=generator)
        if dtype not in LARGEST:
            x[~used] = torch.nan
            found.append((x.to(DEVICE, dtype), None))
            continue
        scales = x.abs().amax(-1) / LARGEST[dtype]
        x = x / scales[..., None]
        if dtype == torch.int8:
            x = x.round()
        scales[~used] = torch.nan
        x = x.to(dtype)
        x.view(torch.uint8)[~used] = 0x7F  # NaN in fp8
        found.append((x.to(DEVICE), scales.to(DEVICE)))
    (keys, key_scales), (values, value_scales) = found
    return LayerCache(keys, values, key_scales, value_scales)


def naive_attention(scene: Scene, scale: float, window: int | None) -> Tensor:
    """float64 [T, heads · dim] on the CPU: softmax(scale q·k) v of every sequence over its keys."""
    tokens, heads, dim = scene.queries.shape
    cache = scene.cache
    keys = _wide(cache.keys, cache.key_scales)
    values = _wide(cache.values, cache.value_scales)
    queries = scene.queries.cpu().double()
    group = heads // keys.shape[1]
    size = cache.keys.shape[1]
    out = torch.zeros(tokens, heads, dim, dtype=torch.float64)
    row = 0
    for line, blocks in zip(scene.lines, scene.blocks, strict=True):
        places = [blocks[i // size] * size + i % size for i in range(line.context)]
        k, v = (x[places].repeat_interleave(group, dim=1) for x in (keys, values))
        for position in range(line.context - line.new, line.context):
            if line.context:
                first = 0 if window is None else max(0, position - window + 1)
                seen = slice(first, position + 1)
                scores = torch.einsum("hd,nhd->hn", queries[row], k[seen]) * scale
                out[row] = torch.einsum("hn,nhd->hd", scores.softmax(1), v[seen])
            row += 1
    return out.flatten(1)


def _wide(x: Tensor, scales: Tensor | None) -> Tensor:
    """float64 [tokens of the cache, kv_heads, dim] on the CPU."""
    wide = x.cpu().float().double()
    if scales is not None:
        wide = wide * scales.cpu().double()[..., None]
    return wide.flatten(0, 1)
