"""Attention in C against the reference: any set of sequences, over steps, with shared blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from engine.config import ModelConfig, RopeConfig
from engine.errors import OutOfCache
from engine.kernels.batch import AttentionBatch
from engine.kernels.native.attention import PagedAttention
from engine.kernels.native.cache import NativeCache
from engine.kernels.reference.backend import ReferenceBackend
from native import needs_kernels

pytestmark = needs_kernels

# Relative to the maximum. An int8 cache also rounds queries and weights.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.int8: 3e-2}
DTYPES = st.sampled_from(list(TOLERANCE))
HEADS = st.sampled_from([(9, 3), (1, 1), (4, 4), (8, 2), (14, 1), (26, 2), (6, 3), (25, 1)])
WIDTHS = st.sampled_from([16, 32, 48, 64, 80, 128, 256])


class Sequences:
    """Keys and values of some sequences, in both layouts: C's, and plain blocks."""

    def __init__(
        self, heads: tuple[int, int], width: int, size: int, dtype: torch.dtype, seed: int
    ) -> None:
        self.heads, self.kv_heads = heads
        self.width, self.size, self.blocks = width, size, 600 * 16 // size
        self.random = torch.Generator().manual_seed(seed)
        model = ModelConfig(
            family="llama",
            vocab_size=1,
            hidden_size=1,
            intermediate_size=1,
            num_layers=1,
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=width,
            max_position=1,
            rms_norm_eps=1e-5,
            rope=RopeConfig(),
            tie_embeddings=False,
        )
        self.dtype = dtype
        self.cache = NativeCache(model, self.blocks, size, dtype)
        plain = (self.blocks, size, self.kv_heads, width)
        self.keys, self.values = torch.zeros(plain), torch.zeros(plain)
        self.free = torch.randperm(self.blocks, generator=self.random).tolist()
        self.tables: list[list[int]] = []
        self.lengths: list[int] = []

    def add(self, shared_with: int | None = None, shared_blocks: int = 0) -> None:
        table = [] if shared_with is None else self.tables[shared_with][:shared_blocks]
        self.tables.append(list(table))
        self.lengths.append(len(table) * self.size)

    def step(self, counts: list[int], attention: PagedAttention) -> tuple[Tensor, Tensor]:
        """The next tokens of every sequence that has some: found, and expected."""
        chosen = [index for index, count in enumerate(counts) if count]
        for index in chosen:
            self.lengths[index] += counts[index]
            while len(self.tables[index]) * self.size < self.lengths[index]:
                self.tables[index].append(self.free.pop())
        width = max(len(self.tables[index]) for index in chosen)
        table = np.zeros((len(chosen), width), dtype=np.int32)
        for row, index in enumerate(chosen):
            table[row, : len(self.tables[index])] = self.tables[index]
        used = np.array([counts[index] for index in chosen], dtype=np.int32)
        contexts = np.array([self.lengths[index] for index in chosen], dtype=np.int32)
        total = int(used.sum())
        queries = self._rand(total, self.heads)
        keys, values = self._rand(total, self.kv_heads), self._rand(total, self.kv_heads)
        found = attention(queries, keys, values, used, contexts, table)
        return found, self._expected(queries, keys, values, used, contexts, table, attention)

    def _rand(self, tokens: int, heads: int) -> Tensor:
        return torch.randn(tokens, heads, self.width, generator=self.random)

    def _expected(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        counts: NDArray[np.int32],
        contexts: NDArray[np.int32],
        table: NDArray[np.int32],
        attention: PagedAttention,
    ) -> Tensor:
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        owners = np.repeat(np.arange(len(counts)), counts)
        positions = np.arange(len(owners)) - starts[owners] + (contexts - counts)[owners]
        places = table[owners, positions // self.size] * self.size + positions % self.size
        slots = torch.from_numpy(places.astype(np.int64))
        reference = ReferenceBackend()
        reference.store_kv(self._kept(keys), self._kept(values), self.keys, self.values, slots)
        batch = AttentionBatch(
            query_start=torch.from_numpy(starts),
            context_lens=torch.from_numpy(contexts),
            block_tables=torch.from_numpy(table),
            slot_mapping=slots,
            num_decodes=0,
            max_query=int(counts.max()),
            max_context=int(contexts.max()),
            block_size=self.size,
        )
        scale = attention._scale
        return reference.paged_attention(
            queries, self.keys, self.values, batch, scale, attention.window
        )

    def _kept(self, x: Tensor) -> Tensor:
        if self.dtype == torch.int8:
            values, scales = ReferenceBackend().quantize_rows(x.flatten(0, 1))
            return (values.float() * scales[:, None]).view(x.shape)
        return x.to(self.dtype).float()


def assert_close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE[dtype] * 4)


@settings(deadline=None, max_examples=150)
@given(
    heads=HEADS,
    width=WIDTHS,
    size=st.sampled_from([16, 32, 64]),
    dtype=DTYPES,
    window=st.sampled_from([None, None, 1, 3, 64, 1000]),
    counts=st.lists(
        st.lists(st.integers(0, 40), min_size=3, max_size=3), min_size=1, max_size=4
    ).filter(lambda steps: all(any(step) for step in steps)),
    first=st.integers(1, 130),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_it_is_the_reference(
    heads: tuple[int, int],
    width: int,
    size: int,
    dtype: torch.dtype,
    window: int | None,
    counts: list[list[int]],
    first: int,
    threads: int,
    seed: int,
) -> None:
    sequences = Sequences(heads, width, size, dtype, seed)
    attention = PagedAttention(sequences.cache, width**-0.5, window, threads=threads)
    for _ in range(3):
        sequences.add()
    for step in [[first, 1, 0], *counts]:
        assert_close(*sequences.step(step, attention), dtype)


@settings(deadline=None, max_examples=60)
@given(
    dtype=DTYPES,
    size=st.sampled_from([16, 32]),
    tree=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20)), min_size=1, max_size=24),
    steps=st.integers(1, 3),
    share=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
def test_sequences_that_share_blocks_read_them_together(
    dtype: torch.dtype,
    size: int,
    tree: list[tuple[int, int]],
    steps: int,
    share: bool,
    threads: int,
    seed: int,
) -> None:
    """A tree of prefixes: each sequence shares some whole blocks with an earlier one."""
    sequences = Sequences((6, 2), 64, size, dtype, seed)
    attention = PagedAttention(sequences.cache, 0.125, threads=threads, share=share)
    sequences.add()
    sequences.step([300], attention)
    for parent, blocks in tree:
        index = parent % len(sequences.tables)
        whole = sequences.lengths[index] // size
        sequences.add(index, min(blocks, whole))
        new = [0] * (len(sequences.tables) - 1)
        assert_close(*sequences.step([*new, 1 + seed % 37], attention), dtype)
    for _ in range(steps):
        assert_close(*sequences.step([1] * len(sequences.tables), attention), dtype)


def test_many_sequences_with_one_long_prefix() -> None:
    sequences = Sequences((9, 3), 64, 16, torch.int8, 1)
    attention = PagedAttention(sequences.cache, 0.125)
    sequences.add()
    sequences.step([512], attention)
    for _ in range(63):
        sequences.add(0, 32)
    assert_close(*sequences.step([1] * 64, attention), torch.int8)
    assert_close(*sequences.step([1, *[2] * 30, *[1] * 33], attention), torch.int8)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_extreme_scores_stay_finite_and_right(dtype: torch.dtype) -> None:
    sequences = Sequences((3, 1), 64, 16, dtype, 0)
    attention = PagedAttention(sequences.cache, 40.0)  # one key takes all, and which one changes
    for _ in range(2):
        sequences.add()
    sequences.step([200, 70], attention)
    found, expected = sequences.step([1, 3], attention)
    assert found.isfinite().all()
    right = (found - expected).abs().amax(-1) < 4 * TOLERANCE[dtype]
    assert right.float().mean() >= 0.75, (
        "rounding decides between two keys that are near each other"
    )
    if dtype == torch.float32:
        assert_close(found, expected, dtype)


def test_a_step_without_tokens_is_empty() -> None:
    sequences = Sequences((9, 3), 64, 16, torch.int8, 0)
    attention = PagedAttention(sequences.cache, 1.0)
    none = np.zeros(0, dtype=np.int32)
    empty = torch.zeros(0, 3, 64)
    out = attention(torch.zeros(0, 9, 64), empty, empty, none, none, np.zeros((0, 1), np.int32))
    assert out.shape == (0, 9, 64)


def test_what_does_not_fit_is_refused() -> None:
    sequences = Sequences((9, 3), 64, 16, torch.int8, 0)
    attention = PagedAttention(sequences.cache, 1.0)
    one = np.ones(1, dtype=np.int32)
    good = torch.zeros(1, 3, 64)
    with pytest.raises(ValueError, match="queries must be of shape"):
        attention(torch.zeros(1, 8, 64), good, good, one, one, np.zeros((1, 1), np.int32))
    apart = torch.zeros(1, 3, 128)[:, :, :64]
    with pytest.raises(ValueError, match="contiguous"):
        attention(torch.zeros(1, 9, 64), apart, good, one, one, np.zeros((1, 1), np.int32))
    with pytest.raises(OutOfCache):
        NativeCache(sequences.cache._model, 0, 16, torch.int8)


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@pytest.mark.parametrize("left", [1.0, 1000.0, torch.inf, torch.nan])
def test_what_a_block_held_before_changes_nothing(dtype: torch.dtype, left: float) -> None:
    """A block's next owner fills a part of it; large or broken values of the last one are
    behind."""
    answers = []
    for before in (None, left):
        sequences = Sequences((6, 2), 32, 16, dtype, seed=1)
        attention = PagedAttention(sequences.cache, 0.2, threads=2)
        one, rest = np.array([5], dtype=np.int32), torch.Generator().manual_seed(5)
        table = np.array([[3]], dtype=np.int32)
        if before is not None:
            sixteen = np.array([16], dtype=np.int32)
            old = torch.randn(16, 2, 32, generator=rest) * before
            attention(torch.randn(16, 6, 32), old.clone(), old, sixteen, sixteen, table)
        fixed = torch.Generator().manual_seed(6)
        queries, keys, values = (torch.randn(5, heads, 32, generator=fixed) for heads in (6, 2, 2))
        answers.append(attention(queries, keys, values, one, one, table))
    assert torch.equal(answers[0], answers[1])
