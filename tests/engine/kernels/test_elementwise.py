"""Norms, rotary embedding, gates and products against naive ones, one number at a time."""

import math

import pytest
import torch

from engine.config import RopeConfig
from engine.kernels.activation import silu_and_mul
from engine.kernels.linear import linear, pack_weight
from engine.kernels.norm import add_rms_norm_, rms_norm
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.rope import RotaryTable, apply_rope, rotary_frequencies

REFERENCE = ReferenceBackend()
CPU = torch.device("cpu")
DTYPES = [torch.float32, torch.bfloat16]


def tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 2e-2


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm_divides_by_the_root_mean_square(dtype: torch.dtype) -> None:
    x, weight = torch.randn(5, 24).to(dtype), torch.randn(24).to(dtype)
    expected = torch.empty(5, 24, dtype=torch.float64)
    for row in range(5):
        numbers = x[row].double().tolist()
        root = math.sqrt(sum(number * number for number in numbers) / 24 + 1e-5)
        expected[row] = torch.tensor([number / root for number in numbers]) * weight.double()
    found = rms_norm(REFERENCE, x, weight, 1e-5)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, atol=tolerance(dtype), rtol=1e-2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_add_rms_norm_also_adds_to_the_float32_residual(dtype: torch.dtype) -> None:
    update, weight = torch.randn(3, 8).to(dtype), torch.randn(8).to(dtype)
    residual = torch.randn(3, 8)
    total = update.float() + residual
    found = add_rms_norm_(REFERENCE, update, residual, weight, 1e-6)
    assert found.dtype == dtype
    assert torch.equal(residual, total)
    expected = rms_norm(REFERENCE, total, weight.float(), 1e-6).to(dtype)
    assert torch.equal(found, expected)
    assert torch.equal(add_rms_norm_(REFERENCE, None, residual, weight, 1e-6), expected)
    assert torch.equal(residual, total)


@pytest.mark.parametrize("dtype", DTYPES)
def test_silu_and_mul(dtype: torch.dtype) -> None:
    x = torch.randn(4, 14).to(dtype)
    gate, up = x[:, :7].double(), x[:, 7:].double()
    found = silu_and_mul(REFERENCE, x)
    assert found.dtype == dtype
    torch.testing.assert_close(
        found.double(), gate / (1 + torch.exp(-gate)) * up, atol=tolerance(dtype), rtol=1e-2
    )


@pytest.mark.parametrize("dtype", DTYPES)
def test_rope_turns_each_pair_by_its_angle(dtype: torch.dtype) -> None:
    heads = torch.randn(3, 2, 8).to(dtype)
    positions = [0, 5, 1000]
    table = RotaryTable.build(rotary_frequencies(RopeConfig(theta=100.0), 8), 1024, CPU)
    found = apply_rope(REFERENCE, heads, table.rows(torch.tensor(positions)))
    expected = torch.empty(3, 2, 8, dtype=torch.float64)
    for token, position in enumerate(positions):
        for head in range(2):
            for pair in range(4):
                angle = position * 100.0 ** (-2 * pair / 8)
                x, y = heads[token, head, pair].item(), heads[token, head, pair + 4].item()
                expected[token, head, pair] = x * math.cos(angle) - y * math.sin(angle)
                expected[token, head, pair + 4] = y * math.cos(angle) + x * math.sin(angle)
    assert found.dtype == dtype
    # float32 angles near 1,000 radians are exact to 6e-5.
    torch.testing.assert_close(found.double(), expected, atol=3e-4 + tolerance(dtype), rtol=0)


def test_llama3_scaling_spares_high_frequencies_and_divides_low_ones() -> None:
    scaled = rotary_frequencies(
        RopeConfig(500_000.0, "llama3", 8.0, 1.0, 4.0, original_max_position=8192), 128
    )
    plain = rotary_frequencies(RopeConfig(500_000.0), 128)
    share = scaled / plain
    assert torch.equal(share[:24], torch.ones(24))
    assert torch.allclose(share[-20:], torch.full((20,), 1 / 8))
    assert (share.diff() <= 1e-6).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 1, 3, 70])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_weights_give_the_same_products(dtype: torch.dtype, rows: int, biased: bool) -> None:
    x, weight = torch.randn(rows, 33).to(dtype), (torch.randn(50, 33) / 6).to(dtype)
    bias = torch.randn(50).to(dtype) if biased else None
    expected = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    for form in (weight, pack_weight(REFERENCE, weight)):
        found = linear(REFERENCE, x, form, bias)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, atol=tolerance(dtype), rtol=1e-2)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="weight must be of shape"):
        rms_norm(REFERENCE, torch.ones(2, 4), torch.ones(3), 1e-5)
    with pytest.raises(ValueError, match="do not halve"):
        silu_and_mul(REFERENCE, torch.ones(2, 5))
    with pytest.raises(ValueError, match="dense"):
        silu_and_mul(REFERENCE, torch.ones(4, 2).T)
