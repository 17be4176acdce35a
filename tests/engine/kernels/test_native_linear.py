"""Products in C against the reference, for every kind of weight, on odd sizes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from engine.kernels.activation import silu_and_mul
from engine.kernels.grouped import GroupedWeight, grouped_linear, quantize_groups
from engine.kernels.int8 import Int8Weight, int8_linear, quantize_rows, quantize_weight
from engine.kernels.native.linear import linear
from engine.kernels.native.weights import AnyWeight, pack
from engine.kernels.reference.backend import ReferenceBackend
from native import needs_kernels

pytestmark = needs_kernels

REFERENCE = ReferenceBackend()
KINDS = (
    "float32",
    "bfloat16",
    "int8",
    "int4-32",
    "int4-64",
    "int4-128",
    "int4-channel",
    "int4-32-symmetric",
    "int8-32",
)


def draw(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator) * 3 + 0.5


def make(kind: str, weight: Tensor) -> AnyWeight:
    name, *rest = kind.split("-")
    if name == "float32":
        return weight
    if name == "bfloat16":
        return weight.bfloat16()
    if kind == "int8":
        return quantize_weight(REFERENCE, weight)
    group = None if rest[0] == "channel" else int(rest[0])
    return quantize_groups(
        REFERENCE, weight, group, bits=int(name[3:]), symmetric="symmetric" in rest
    )


def reference(x: Tensor, weight: AnyWeight, bias: Tensor | None) -> Tensor:
    match weight:
        case Int8Weight():
            product = int8_linear(REFERENCE, quantize_rows(REFERENCE, x), weight)
        case GroupedWeight():
            product = grouped_linear(REFERENCE, x, weight)
        case Tensor():
            product = (x.to(weight.dtype).double() @ weight.double().T).float()
    return product if bias is None else product + bias


def assert_equal(ours: Tensor, theirs: Tensor) -> None:
    """Sums of whole numbers are exact, but a value on the edge of two steps may fall either way."""
    scale = float(theirs.abs().max()) if theirs.numel() else 1.0
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-3 * max(scale, 1e-6))


@settings(deadline=None, max_examples=200)
@given(
    kind=st.sampled_from(KINDS),
    tokens=st.integers(0, 210),
    inputs=st.integers(1, 6),
    outputs=st.integers(1, 200),
    biased=st.booleans(),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_product_is_the_references(
    kind: str, tokens: int, inputs: int, outputs: int, biased: bool, threads: int, seed: int
) -> None:
    width = inputs * (16 if kind in ("float32", "bfloat16", "int8") else 128)
    x, bias = draw(seed, tokens, width), draw(seed + 1, outputs) if biased else None
    weight = make(kind, draw(seed + 2, outputs, width))
    assert_equal(linear(x, pack(weight, bias), threads=threads), reference(x, weight, bias))


@pytest.mark.parametrize("kind", KINDS[:4])
@pytest.mark.parametrize("inner", [16, 48, 1536])
def test_a_gate_is_the_references(kind: str, inner: int) -> None:
    x, bias = draw(1, 37, 96), draw(2, 2 * inner)
    weight = make(kind, draw(3, 2 * inner, 96) / 10)
    theirs = silu_and_mul(REFERENCE, reference(x, weight, bias))
    assert_equal(linear(x, pack(weight, bias, gated=True), gated=True), theirs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 5, 6, 7, 96, 97, 193])
def test_the_embedded_models_own_shapes(kind: str, tokens: int) -> None:
    for outputs, inputs in ((960, 576), (576, 576), (3072, 576), (576, 1536)):
        if kind == "int4-128" and inputs == 576:
            continue  # 4.5 groups
        x, weight = draw(2, tokens, inputs), make(kind, draw(1, outputs, inputs))
        assert_equal(linear(x, pack(weight)), reference(x, weight, None))


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_its_company(kind: str) -> None:
    weight = pack(make(kind, draw(1, 130, 256)))
    x = draw(2, 100, 256)
    whole = linear(x, weight)
    for rows in (slice(0, 1), slice(3, 8), slice(50, 100)):
        assert torch.equal(linear(x[rows].contiguous(), weight), whole[rows])


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind: str) -> None:
    weight = pack(make(kind, torch.zeros(70, 128)), torch.ones(70))
    assert torch.equal(linear(torch.zeros(3, 128), weight), torch.ones(3, 70))


def test_shapes_that_do_not_fit_are_refused() -> None:
    weight = pack(draw(1, 8, 32))
    with pytest.raises(ValueError, match="x must be of shape"):
        linear(draw(1, 2, 48), weight)
    with pytest.raises(ValueError, match="contiguous"):
        linear(draw(1, 2, 64)[:, :32], weight)
    with pytest.raises(ValueError, match="float32"):
        linear(draw(1, 2, 32).bfloat16(), weight)
