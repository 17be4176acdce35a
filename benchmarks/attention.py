"""Paged attention by itself: our kernel in C, PyTorch's operators, and Numba where it is installed.

    python benchmarks/attention.py
    pip install numba && python benchmarks/attention.py --threads 2

The model's shape (9 query heads on 3 key heads of 64) and 128 sequences with one new token each, or
one prompt of 512. PyTorch gathers blocks and calls ``scaled_dot_product_attention``
(`engine.kernels.reference.attention`). Numba reads blocks in place, as C does, from the layout that
PyTorch has. Contenders take turns over several caches, so that none finds its keys in the
processor's; medians in milliseconds a layer.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.config import ModelConfig, RopeConfig
from engine.kernels.batch import AttentionBatch
from engine.kernels.native.attention import PagedAttention
from engine.kernels.native.cache import NativeCache
from engine.kernels.reference.backend import ReferenceBackend

HEADS, KV_HEADS, WIDTH, SIZE, LAYERS = 9, 3, 64, 16, 6
SHAPE = ModelConfig(
    family="llama",
    vocab_size=1,
    hidden_size=HEADS * WIDTH,
    intermediate_size=16,
    num_layers=1,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    head_dim=WIDTH,
    max_position=8192,
    rms_norm_eps=1e-5,
    rope=RopeConfig(),
    tie_embeddings=True,
)
Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Work:
    """A step: so many new tokens for each of some sequences, at one context."""

    name: str
    sequences: int
    new: int
    context: int

    @property
    def tokens(self) -> int:
        """Of the step."""
        return self.sequences * self.new

    @property
    def blocks(self) -> int:
        """Of each sequence."""
        return -(-self.context // SIZE)

    def tables(self) -> NDArray[np.int32]:
        """int32 [sequences, blocks], in an order that no processor foresees."""
        order = np.random.default_rng(0).permutation(self.sequences * self.blocks)
        return order.astype(np.int32).reshape(self.sequences, self.blocks)


WORKS = (
    Work("128 decodes at context 160", 128, 1, 160),
    Work("128 decodes at context 1,000", 128, 1, 1000),
    Work("a prompt of 512", 1, 512, 512),
)


def in_c(work: Work, dtype: torch.dtype, threads: int) -> list[Call]:
    """Our kernel, over one cache after the other."""
    counts = np.full(work.sequences, work.new, dtype=np.int32)
    contexts = np.full(work.sequences, work.context, dtype=np.int32)
    tables = work.tables()
    queries = torch.randn(work.tokens, HEADS, WIDTH)
    new = torch.randn(work.tokens, KV_HEADS, WIDTH)
    calls: list[Call] = []
    for _ in range(LAYERS):
        cache = NativeCache(SHAPE, tables.size, SIZE, dtype)
        cache.fill(60)
        attention = PagedAttention(cache, WIDTH**-0.5, threads=threads)
        calls.append(lambda a=attention: a(queries, new, new, counts, contexts, tables))
    return calls


def in_torch(work: Work, dtype: torch.dtype, threads: int) -> list[Call]:
    """PyTorch's operators, the step's index arrays made ahead."""
    tables = torch.from_numpy(work.tables())
    starts = torch.arange(work.sequences + 1, dtype=torch.int32) * work.new
    batch = AttentionBatch(
        query_start=starts,
        context_lens=torch.full((work.sequences,), work.context, dtype=torch.int32),
        block_tables=tables,
        slot_mapping=torch.zeros(work.tokens, dtype=torch.int64),
        num_decodes=work.sequences if work.new == 1 else 0,
        max_query=work.new,
        max_context=work.context,
        block_size=SIZE,
        max_decode_context=work.context if work.new == 1 else 0,
    )
    queries = torch.randn(work.tokens, HEADS, WIDTH).to(dtype)
    reference = ReferenceBackend()
    calls: list[Call] = []
    for _ in range(LAYERS):
        keys, values = (
            torch.randn(tables.numel(), SIZE, KV_HEADS, WIDTH).to(dtype) for _ in range(2)
        )
        calls.append(
            lambda k=keys, v=values: reference.paged_attention(
                queries, k, v, batch, WIDTH**-0.5, None
            )
        )
    return calls


def in_numba(work: Work, dtype: torch.dtype, threads: int) -> list[Call] | None:
    """Decodes in Numba; ``None`` where it is not installed, or cannot."""
    if work.new != 1 or dtype == torch.int8:
        return None
    try:
        import numba
    except ModuleNotFoundError:
        return None
    numba.set_num_threads(threads)
    decode = _numba_decode(numba, narrow=dtype == torch.bfloat16)
    tables, contexts = work.tables(), np.full(work.sequences, work.context, dtype=np.int32)
    queries = np.random.default_rng(0).random((work.sequences, HEADS, WIDTH), dtype=np.float32)
    out = np.empty_like(queries)
    calls: list[Call] = []
    for _ in range(LAYERS):
        kept = torch.randn(2, tables.size, SIZE, KV_HEADS, WIDTH).to(dtype)
        plain = kept if dtype == torch.float32 else kept.view(torch.uint16)
        keys, values = plain.numpy()
        calls.append(
            lambda k=keys, v=values: decode(queries, k, v, tables, contexts, WIDTH**-0.5, out)
        )
    return calls


def _numba_decode(numba: Any, *, narrow: bool) -> Any:
    """softmax(scale · q kᵀ) v for one token a sequence; ``narrow``: uint16 that are bf16."""

    @numba.njit(inline="always")
    def plain(x: Any) -> Any:
        return x

    @numba.njit(inline="always")
    def widened(x: Any) -> Any:
        return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)

    wide = widened if narrow else plain

    @numba.njit(parallel=True, fastmath=True)
    def decode(
        queries: Any, keys: Any, values: Any, tables: Any, contexts: Any, scale: float, out: Any
    ) -> None:
        kv_heads, width = keys.shape[2], keys.shape[3]
        size, group = keys.shape[1], queries.shape[1] // kv_heads
        for unit in numba.prange(queries.shape[0] * kv_heads):
            sequence, head = unit // kv_heads, unit % kv_heads
            count = contexts[sequence]
            scores = np.empty((group, count), np.float32)
            for t in range(count):
                row = keys[tables[sequence, t // size], t % size, head]
                for g in range(group):
                    query, total = queries[sequence, head * group + g], np.float32(0)
                    for d in range(width):
                        total += query[d] * wide(row[d])
                    scores[g, t] = total * np.float32(scale)
            for g in range(group):
                scores[g] = np.exp(scores[g] - scores[g].max())
                scores[g] /= scores[g].sum()
                out[sequence, head * group + g] = 0
            for t in range(count):
                row = values[tables[sequence, t // size], t % size, head]
                for g in range(group):
                    to, weight = out[sequence, head * group + g], scores[g, t]
                    for d in range(width):
                        to[d] += weight * wide(row[d])

    return decode


def milliseconds(calls: dict[str, list[Call]], runs: int) -> dict[str, float]:
    """The median of each contender, in turns."""
    turns = {name: cycle(each) for name, each in calls.items()}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for run in range(runs + 3):
        for name, turn in turns.items():
            call = next(turn)
            began = perf_counter()
            call()
            if run >= 3:
                times[name].append((perf_counter() - began) * 1e3)
    return {name: median(each) for name, each in times.items()}


@torch.inference_mode()
def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    contenders = {"C": in_c, "PyTorch": in_torch, "Numba": in_numba}
    print(f"| | cache | {' | '.join(contenders)} |")
    print("|---|---|---|---|---|")
    for work in WORKS:
        for dtype in (torch.int8, torch.bfloat16, torch.float32):
            calls = {
                name: made
                for name, make in contenders.items()
                if not (name == "PyTorch" and dtype == torch.int8)
                and (made := make(work, dtype, args.threads))
            }
            found = milliseconds(calls, args.runs)
            cells = [f"{found[name]:.2f}" if name in found else "" for name in contenders]
            print(f"| {work.name} | {str(dtype).removeprefix('torch.')} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
