"""Paged attention against a naive one that is written out here, one number at a time."""

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from engine.kernels.attention import paged_attention, store_kv
from engine.kernels.batch import AttentionBatch
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.reference.walk import make_walk

REFERENCE = ReferenceBackend()
CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]


def tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 2e-2


@dataclass
class Scene:
    """Random sequences in a random cache: what a kernel gets, and what is in it, in the clear."""

    queries: Tensor
    key_cache: Tensor
    value_cache: Tensor
    batch: AttentionBatch
    keys: list[Tensor]
    values: list[Tensor]
    counts: list[int]


def make_scene(
    counts: list[int],
    contexts: list[int],
    heads: int,
    kv_heads: int,
    dim: int,
    *,
    dtype: torch.dtype = torch.float32,
    block_size: int = 4,
    device: torch.device = CPU,
) -> Scene:
    generator = torch.Generator().manual_seed(len(counts) + sum(contexts))

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    needed = [-(-context // block_size) for context in contexts]
    order = torch.randperm(sum(needed) + 3, generator=generator).tolist()
    num_blocks = len(order)
    key_cache = torch.full((num_blocks, block_size, kv_heads, dim), 9.0).to(device, dtype)
    value_cache = torch.full_like(key_cache, -9.0)
    tables = torch.zeros(len(counts), max(needed, default=0), dtype=torch.int32, device=device)
    slots: list[int] = []
    keys, values = [], []
    for row, (count, context) in enumerate(zip(counts, contexts, strict=True)):
        blocks = [order.pop() for _ in range(needed[row])]
        tables[row, : len(blocks)] = torch.tensor(blocks, dtype=torch.int32)
        places = [blocks[i // block_size] * block_size + i % block_size for i in range(context)]
        keys.append(noise(context, kv_heads, dim))
        values.append(noise(context, kv_heads, dim))
        # Earlier steps' keys are in the cache already; this step's are stored through the kernel.
        for place, key, value in zip(places[:-count], keys[-1], values[-1], strict=False):
            key_cache[place // block_size, place % block_size] = key
            value_cache[place // block_size, place % block_size] = value
        slots += places[-count:]
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    decodes = next((i for i, count in enumerate(counts) if count != 1), len(counts))
    batch = AttentionBatch(
        query_start=torch.tensor(starts, dtype=torch.int32, device=device),
        context_lens=torch.tensor(contexts, dtype=torch.int32, device=device),
        block_tables=tables,
        slot_mapping=torch.tensor(slots, dtype=torch.int64, device=device),
        num_decodes=decodes,
        max_query=max(counts, default=0),
        max_context=max(contexts, default=0),
        block_size=block_size,
        max_decode_context=max(contexts[:decodes], default=0),
    )
    new = [rows[-count:] for rows, count in zip(keys, counts, strict=True)]
    new_values = [rows[-count:] for rows, count in zip(values, counts, strict=True)]
    if slots:
        rows = torch.cat(new), torch.cat(new_values)
        store_kv(REFERENCE, *rows, key_cache, value_cache, batch.slot_mapping)
    queries = noise(sum(counts), heads, dim)
    return Scene(queries, key_cache, value_cache, batch, keys, values, counts)


def naive_attention(scene: Scene, scale: float, window: int | None) -> Tensor:
    """softmax(scale q·k) v for each query and head by itself, in float64."""
    group = scene.queries.shape[1] // scene.key_cache.shape[2]
    out = torch.zeros(scene.queries.shape, dtype=torch.float64)
    row = 0
    for keys, values, count in zip(scene.keys, scene.values, scene.counts, strict=True):
        for position in range(len(keys) - count, len(keys)):
            first = 0 if window is None else max(0, position - window + 1)
            for head in range(scene.queries.shape[1]):
                query = scene.queries[row, head].cpu().double()
                seen = keys[first : position + 1, head // group].cpu().double()
                weights = torch.softmax(seen @ query * scale, dim=0)
                seen_values = values[first : position + 1, head // group].cpu().double()
                out[row, head] = weights @ seen_values
            row += 1
    return out


def check_attention(scene: Scene, window: int | None) -> None:
    scale = scene.queries.shape[2] ** -0.5
    caches = scene.key_cache, scene.value_cache
    found = paged_attention(REFERENCE, scene.queries, *caches, scene.batch, scale, window)
    assert found.shape == scene.queries.shape
    assert found.dtype == scene.queries.dtype
    difference = (found.cpu().double() - naive_attention(scene, scale, window)).abs()
    assert difference.numel() == 0 or difference.max() < tolerance(found.dtype)


SHAPES = {
    "one token ever": ([1], [1]),
    "one decode": ([1], [9]),
    "decodes of unlike lengths": ([1, 1, 1, 1], [1, 30, 4, 17]),
    "whole prompt": ([13], [13]),
    "chunk after a prefix": ([5], [21]),
    "last token of a prompt beside decodes": ([1, 1, 1, 6, 12, 3], [8, 2, 31, 6, 20, 3]),
    "full blocks": ([1, 8], [16, 8]),
}


@pytest.mark.parametrize("window", [None, 1, 5, 64])
@pytest.mark.parametrize(("heads", "kv_heads"), [(9, 3), (4, 4), (6, 1), (1, 1)])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_equals_the_naive_one(
    shape: str, heads: int, kv_heads: int, window: int | None
) -> None:
    check_attention(make_scene(*SHAPES[shape], heads, kv_heads, 8), window)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(12))
def test_attention_of_random_batches(seed: int, dtype: torch.dtype) -> None:
    source = random.Random(seed)
    decodes, prompts = source.randrange(5), source.randrange(4)
    counts = [1] * decodes + [source.randrange(1, 12) for _ in range(prompts)]
    contexts = [count + source.choice((0, source.randrange(40))) for count in counts]
    kv_heads = source.choice((1, 2, 3))
    scene = make_scene(
        counts,
        contexts,
        kv_heads * source.choice((1, 2, 3)),
        kv_heads,
        source.choice((4, 16, 64)),
        dtype=dtype,
        block_size=source.choice((1, 4, 16)),
    )
    check_attention(scene, source.choice((None, source.randrange(1, 30))))


def test_many_decodes_are_computed_in_several_groups() -> None:
    # 40 decodes of 512 to 551 keys of 2 heads of 64 in float32 are over 10 MiB of keys.
    scene = make_scene([1] * 40, [512 + i for i in range(40)], 2, 2, 64, block_size=16)
    check_attention(scene, None)
    groups = make_walk(scene.batch, None, 4096, torch.float32).decodes
    assert len(groups) > 1
    assert sorted(torch.cat([group.rows for group in groups]).tolist()) == list(range(40))


def test_an_empty_batch_gives_an_empty_answer() -> None:
    scene = make_scene([], [], 4, 2, 8)
    check_attention(scene, None)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_attention_on_a_gpu(shape: str, window: int | None, dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    check_attention(make_scene(*SHAPES[shape], 9, 3, 64, dtype=dtype, device=device), window)


def test_store_kv_writes_the_named_slots_and_no_others() -> None:
    cache = torch.zeros(3, 4, 2, 8)
    keys, values = torch.randn(2, 2, 8), torch.randn(2, 2, 8)
    value_cache = cache.clone()
    store_kv(REFERENCE, keys, values, cache, value_cache, torch.tensor([7, 2]))
    assert torch.equal(cache[1, 3], keys[0])
    assert torch.equal(cache[0, 2], keys[1])
    assert torch.equal(value_cache[1, 3], values[0])
    cache[1, 3] = cache[0, 2] = 0
    assert not cache.any()


def test_wrong_arguments_are_named() -> None:
    scene = make_scene([1, 3], [5, 3], 4, 2, 8)
    caches = scene.key_cache, scene.value_cache
    with pytest.raises(ValueError, match="queries must be of shape"):
        paged_attention(REFERENCE, scene.queries[:-1], *caches, scene.batch, 1.0)
    with pytest.raises(ValueError, match="queries must be torch"):
        paged_attention(REFERENCE, scene.queries.half(), *caches, scene.batch, 1.0)
    with pytest.raises(ValueError, match="do not divide"):
        paged_attention(REFERENCE, scene.queries[:, :3], *caches, scene.batch, 1.0)
    with pytest.raises(ValueError, match="sees nothing"):
        paged_attention(REFERENCE, scene.queries, *caches, scene.batch, 1.0, 0)
    with pytest.raises(ValueError, match="value_cache must be of shape"):
        paged_attention(REFERENCE, scene.queries, caches[0], caches[1][:1], scene.batch, 1.0)
    one = torch.ones(1, 2, 8)
    with pytest.raises(ValueError, match="slot_mapping must be torch"):
        store_kv(REFERENCE, one, one, *caches, torch.tensor([0], dtype=torch.int32))
