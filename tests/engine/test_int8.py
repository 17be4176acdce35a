"""Products in 8 bits: the native kernel against the reference, and both against floats."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels import int8, reference
from engine.kernels.native import build


def compiled() -> bool:
    try:
        build.build()
    except build.BuildFailed:
        return False
    return True


needs_compiler = pytest.mark.skipif(not compiled(), reason="there is no C compiler")

WIDTHS = st.integers(1, 12).map(lambda n: 16 * n)
DTYPES = st.sampled_from([torch.float32, torch.bfloat16])


def draw(seed: int, *shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 3 + 0.5


@needs_compiler
@settings(deadline=None, max_examples=60)
@given(tokens=st.integers(0, 40), width=WIDTHS, dtype=DTYPES, seed=st.integers(0, 99))
def test_native_rows_are_the_references(
    tokens: int, width: int, dtype: torch.dtype, seed: int
) -> None:
    x = draw(seed, tokens, width + 16).to(dtype)[:, :width]  # rows that stand apart
    ours, theirs = int8.quantise_rows(x), int8.Int8Rows(*reference.quantise_rows(x))
    torch.testing.assert_close(ours.scales, theirs.scales)
    assert torch.equal(ours.zeros, theirs.zeros)
    # A value on the edge of two steps may fall to either side.
    assert not ((ours.values.int() - theirs.values.int()).abs() > 1).any()


@needs_compiler
@settings(deadline=None, max_examples=60)
@given(
    tokens=st.integers(0, 220),
    inputs=WIDTHS,
    outputs=st.integers(1, 200),
    dtype=DTYPES,
    seed=st.integers(0, 99),
)
def test_the_native_product_is_the_references(
    tokens: int, inputs: int, outputs: int, dtype: torch.dtype, seed: int
) -> None:
    weight = int8.quantise_weight(draw(seed, outputs, inputs), draw(seed + 1, outputs))
    assert weight.packed
    rows = int8.quantise_rows(draw(seed + 2, tokens, inputs))
    ours = int8.int8_linear(rows, weight, dtype)
    plain = int8._unpacked(weight)
    theirs = reference.int8_linear(rows.values, rows.scales, rows.zeros, *plain).to(dtype)
    tolerance = 1e-5 if dtype == torch.float32 else 8e-3
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@needs_compiler
@pytest.mark.parametrize("tokens", [1, 5, 6, 7, 96, 97, 192, 193])
def test_the_models_own_shapes(tokens: int) -> None:
    for outputs, inputs in ((960, 576), (576, 576), (3072, 576), (576, 1536)):
        weight = int8.quantise_weight(draw(1, outputs, inputs))
        rows = int8.quantise_rows(draw(2, tokens, inputs))
        theirs = reference.int8_linear(
            rows.values, rows.scales, rows.zeros, *int8._unpacked(weight)
        )
        torch.testing.assert_close(
            int8.int8_linear(rows, weight, torch.float32), theirs, rtol=1e-5, atol=1e-4
        )


def test_the_product_is_close_to_that_of_floats() -> None:
    x, weight, bias = draw(1, 30, 96), draw(2, 70, 96), draw(3, 70)
    made = int8.int8_linear(
        int8.quantise_rows(x), int8.quantise_weight(weight, bias), torch.float32
    )
    exact = x @ weight.T + bias
    assert (made - exact).norm() / exact.norm() < 0.01


def test_rows_and_channels_of_zeros_stay_zero() -> None:
    rows = int8.quantise_rows(torch.zeros(3, 32))
    weight = int8.quantise_weight(torch.zeros(5, 32), torch.ones(5))
    assert torch.equal(int8.int8_linear(rows, weight, torch.float32), torch.ones(3, 5))


def test_greatest_and_least_values_are_kept() -> None:
    x = torch.tensor([[-4.0, 0.0, 2.0, 6.0] * 4])
    rows = int8.quantise_rows(x)
    back = rows.scales[:, None] * (rows.values.int() - rows.zeros[:, None])
    torch.testing.assert_close(back, x, rtol=0, atol=float(rows.scales[0]) / 2 + 1e-6)
    assert rows.values.min() == 0
    assert rows.values.max() == 255
    assert back[0, 1] == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    weight = int8.quantise_weight(draw(1, 8, 32))
    with pytest.raises(ValueError, match="x must be of shape"):
        int8.int8_linear(int8.quantise_rows(draw(1, 2, 48)), weight, torch.float32)
    with pytest.raises(ValueError, match="bias"):
        int8.quantise_weight(draw(1, 8, 32), draw(1, 7))
