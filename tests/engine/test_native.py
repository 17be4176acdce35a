"""The kernels in C against the reference, and what happens where they cannot be built."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import reference
from engine.kernels.batch import AttentionBatch
from engine.kernels.native import attention, build, elementwise, library

TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 2e-2}


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What this process knows of the library is forgotten, before and after."""
    library.library.cache_clear()
    build.build.cache_clear()
    yield
    library.library.cache_clear()
    build.build.cache_clear()


def compiled() -> bool:
    try:
        build.build()
    except build.BuildFailed:
        return False
    return True


needs_compiler = pytest.mark.skipif(not compiled(), reason="there is no C compiler")


def make_batch(
    lengths: list[tuple[int, int]], block_size: int, generator: torch.Generator
) -> AttentionBatch:
    """A step of sequences given as (queries, keys), over blocks in random order."""
    lengths = sorted(lengths, key=lambda pair: pair[0] > 1)
    queries = torch.tensor([0] + [q for q, _ in lengths]).cumsum(0)
    width = -(-max(k for _, k in lengths) // block_size)
    blocks = torch.randperm(len(lengths) * width, generator=generator)
    return AttentionBatch(
        query_start=queries.int(),
        context_lens=torch.tensor([k for _, k in lengths]).int(),
        block_tables=blocks.view(len(lengths), width).int(),
        slot_mapping=torch.zeros(int(queries[-1]), dtype=torch.int64),
        num_decodes=sum(q == 1 for q, _ in lengths),
        max_query=max(q for q, _ in lengths),
        max_context=max(k for _, k in lengths),
        block_size=block_size,
    )


sequences = st.lists(
    st.tuples(st.integers(1, 40), st.integers(0, 150)).map(lambda p: (p[0], p[0] + p[1])),
    min_size=1,
    max_size=6,
)


@needs_compiler
@given(
    lengths=sequences,
    heads=st.sampled_from([(9, 3), (1, 1), (4, 4), (8, 2), (14, 1), (26, 2), (6, 3)]),
    width=st.sampled_from([16, 32, 64, 80, 128]),
    block_size=st.sampled_from([1, 5, 16, 32]),
    window=st.sampled_from([None, 1, 3, 64, 1000]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=150, deadline=None)
def test_it_is_the_reference(
    lengths: list[tuple[int, int]],
    heads: tuple[int, int],
    width: int,
    block_size: int,
    window: int | None,
    dtype: torch.dtype,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    batch = make_batch(lengths, block_size, generator)
    query_heads, kv_heads = heads
    # A fused projection: the queries are a part of each token's row.
    fused = torch.randn(batch.num_tokens, query_heads + 2, width, generator=generator).to(dtype)
    queries = fused[:, :query_heads]
    shape = (batch.block_tables.numel(), block_size, kv_heads, width)
    keys, values = (torch.randn(shape, generator=generator).to(dtype) for _ in range(2))
    assert attention.supports(queries, keys)
    found = attention.paged_attention(queries, keys, values, batch, width**-0.5, window)
    expected = reference.paged_attention(
        queries.float(), keys.float(), values.float(), batch, width**-0.5, window
    )
    assert found.dtype == dtype
    assert found.is_contiguous()
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(found.float(), expected, atol=tolerance, rtol=tolerance)


@needs_compiler
def test_extreme_scores_stay_finite_and_right() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = make_batch([(1, 200), (3, 70)], 16, generator)
    queries = torch.randn(4, 3, 64, generator=generator) * 50
    shape = (batch.block_tables.numel(), 16, 1, 64)
    keys, values = (torch.randn(shape, generator=generator) * 50 for _ in range(2))
    found = attention.paged_attention(queries, keys, values, batch, 1.0, None)
    expected = reference.paged_attention(queries, keys, values, batch, 1.0, None)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-4)


@needs_compiler
@given(
    tokens=st.integers(0, 70),
    width=st.sampled_from([32, 64, 576, 1536]),
    heads=st.sampled_from([1, 12]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    first=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=80, deadline=None)
def test_the_passes_between_products_are_the_reference(
    tokens: int, width: int, heads: int, dtype: torch.dtype, first: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 4

    tolerance = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    update = None if first else rand(tokens, width).to(dtype)
    residual, weight = rand(tokens, width), rand(width).to(dtype)
    same = residual.clone()
    found = elementwise.add_rms_norm_(update, residual, weight, 1e-5)
    expected = reference.add_rms_norm_(update, same, weight, 1e-5)
    assert found is not None
    torch.testing.assert_close(found, expected, **tolerance)
    torch.testing.assert_close(residual, same)

    gate_up = rand(tokens, 2 * width).to(dtype) * 10
    found = elementwise.silu_and_mul(gate_up)
    assert found is not None
    expected = reference.silu_and_mul(gate_up.float()).to(dtype)
    torch.testing.assert_close(found, expected, **tolerance)

    fused = rand(tokens, heads + 2, 64).to(dtype)
    angles = rand(tokens, 1, 64)
    found = elementwise.apply_rope(fused[:, :heads], angles.cos(), angles.sin())
    assert found is not None
    assert found.is_contiguous()
    expected = reference.apply_rope(fused[:, :heads], angles.cos(), angles.sin())
    torch.testing.assert_close(found, expected, **tolerance)


def test_odd_widths_are_left_to_the_reference() -> None:
    assert elementwise.silu_and_mul(torch.zeros(2, 2 * 24)) is None
    assert elementwise.add_rms_norm_(None, torch.zeros(2, 24), torch.zeros(24), 1e-5) is None
    assert elementwise.apply_rope(torch.zeros(2, 1, 16), *(torch.zeros(2, 1, 16),) * 2) is None


@needs_compiler
def test_an_empty_step_is_empty() -> None:
    empty = torch.zeros(0, dtype=torch.int32)
    batch = AttentionBatch(
        query_start=torch.zeros(1, dtype=torch.int32),
        context_lens=empty,
        block_tables=torch.zeros(0, 1, dtype=torch.int32),
        slot_mapping=empty.long(),
        num_decodes=0,
        max_query=0,
        max_context=0,
        block_size=16,
    )
    cache = torch.zeros(2, 16, 3, 64)
    out = attention.paged_attention(torch.zeros(0, 9, 64), cache, cache, batch, 1.0, None)
    assert out.shape == (0, 9, 64)


def test_what_it_cannot_do_is_left_to_the_reference() -> None:
    cache = torch.zeros(2, 16, 1, 24)
    assert not attention.supports(torch.zeros(1, 1, 24), cache)  # not a multiple of 16
    wide = torch.zeros(2, 16, 1, 64, dtype=torch.float16)
    assert not attention.supports(torch.zeros(1, 1, 64, dtype=torch.float16), wide)


def test_without_a_compiler_it_warns_once_and_the_reference_serves(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING):
        assert not library.available()
        assert not library.available()
    assert len(caplog.records) == 1
    assert "no C compiler" in caplog.text
    assert not attention.supports(torch.zeros(1, 1, 64), torch.zeros(2, 16, 1, 64))


@needs_compiler
def test_a_second_build_is_the_first_one_and_a_home_that_cannot_be_written_is_no_obstacle(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = build.build()
    assert made.is_relative_to(tmp_path)
    before = made.stat().st_mtime_ns
    build.build.cache_clear()
    assert build.build() == made
    assert made.stat().st_mtime_ns == before
    monkeypatch.setenv("HOME", "/proc/nowhere")
    build.build.cache_clear()
    elsewhere = build.build()
    assert elsewhere.exists()
    assert elsewhere.name == made.name
