"""Rounding to few bits in the reference, against the numbers that were rounded."""

import pytest
import torch
from torch import Tensor

from engine.kernels import int8
from engine.kernels.grouped import grouped_linear, quantize_groups
from engine.kernels.reference.backend import ReferenceBackend

REFERENCE = ReferenceBackend()


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 3 + 0.5


def test_an_int8_product_is_close_to_that_of_floats() -> None:
    x, weight = draw(1, 30, 96), draw(2, 70, 96)
    made = int8.int8_linear(
        REFERENCE, int8.quantize_rows(REFERENCE, x), int8.quantize_weight(REFERENCE, weight)
    )
    exact = x @ weight.T
    assert (made - exact).norm() / exact.norm() < 0.01


def test_a_rows_maximum_is_kept_and_zero_stays_zero() -> None:
    x = torch.tensor([[-4.0, 0.0, 2.0, 6.0] * 4])
    rows = int8.quantize_rows(REFERENCE, x)
    back = rows.scales[:, None] * rows.values
    torch.testing.assert_close(back, x, rtol=0, atol=float(rows.scales[0]) / 2 + 1e-6)
    assert rows.values.max() == 127
    assert back[0, 1] == 0


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("group", [32, 64, 128, None])
def test_no_weight_is_further_off_than_half_a_step(
    group: int | None, bits: int, symmetric: bool
) -> None:
    weight = draw(3, 20, 128)
    rounded = quantize_groups(REFERENCE, weight, group, bits=bits, symmetric=symmetric)
    assert int(rounded.values.max()) < 2**bits
    assert rounded.group == (group or 128)
    error = (rounded.dequantize() - weight).abs().view(20, -1, rounded.group)
    # Where zero is a whole number, the maximum may be beyond the last step.
    assert (error <= (0.51 if symmetric else 1.01) * rounded.scales[:, :, None] + 1e-6).all()


def test_smaller_groups_and_more_bits_are_closer() -> None:
    x, weight = draw(1, 30, 128), draw(2, 70, 128)
    exact = x @ weight.T
    errors = [
        float(
            (
                grouped_linear(REFERENCE, x, quantize_groups(REFERENCE, weight, group, bits=bits))
                - exact
            ).norm()
        )
        for group, bits in ((None, 4), (64, 4), (32, 4), (32, 8))
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] / exact.norm() < 0.01


def test_an_outlier_channel_costs_its_own_group_only() -> None:
    x = draw(1, 30, 128)
    x[:, 5] = 1000
    weight = draw(2, 70, 128)
    weight[:, :32] = 0  # whatever is lost, is lost in the other groups
    rounded = quantize_groups(REFERENCE, weight, 32, bits=8)
    exact = x @ rounded.dequantize().T
    by_group = grouped_linear(REFERENCE, x, rounded)
    by_row = int8.int8_linear(
        REFERENCE, int8.quantize_rows(REFERENCE, x), int8.quantize_weight(REFERENCE, weight)
    )
    assert (by_group - exact).norm() < 0.01 * exact.norm()
    assert (by_row - exact).norm() > 0.1 * exact.norm()


def test_shapes_that_do_not_fit_are_refused() -> None:
    weight = int8.quantize_weight(REFERENCE, draw(1, 8, 32))
    with pytest.raises(ValueError, match="x must be of shape"):
        int8.int8_linear(REFERENCE, int8.quantize_rows(REFERENCE, draw(1, 2, 48)), weight)
    with pytest.raises(ValueError, match="groups of 64"):
        quantize_groups(REFERENCE, draw(1, 8, 96), 64)
    with pytest.raises(ValueError, match="x must be of shape"):
        grouped_linear(REFERENCE, draw(1, 2, 64), quantize_groups(REFERENCE, draw(1, 8, 96)))
