"""What C does to weights while a model is loaded, beside plain torch."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.int8 import Int8Weight
from engine.kernels.native.backend import NativeBackend
from engine.kernels.native.weights import GATES, PANEL, pack
from engine.kernels.reference.backend import ReferenceBackend
from native import needs_kernels

pytestmark = needs_kernels

REFERENCE = ReferenceBackend()


def weight(rows: int, columns: int) -> Tensor:
    """Rows of very different sizes, one of them of zeros."""
    generator = torch.Generator().manual_seed(rows * columns)
    drawn = torch.randn(rows, columns, generator=generator) * 10.0 ** torch.linspace(
        -30, 30, rows
    ).unsqueeze(1)
    drawn[rows // 2] = 0
    return drawn


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 16), (5, 48), (130, 576), (64, 1536)])
def test_channels_are_rounded_as_the_reference_rounds_them(
    shape: tuple[int, int], threads: int
) -> None:
    given = weight(*shape)
    before = given.clone()
    values, scales = NativeBackend(threads).quantize_channels(given)
    expected = REFERENCE.quantize_channels(given)
    assert torch.equal(values, expected[0])
    assert torch.equal(scales, expected[1])
    assert torch.equal(given, before)


@pytest.mark.parametrize("given", [weight(6, 40), weight(8, 32).T, weight(4, 32).bfloat16()])
def test_what_c_does_not_round_is_rounded_all_the_same(given: Tensor) -> None:
    found = NativeBackend(1).quantize_channels(given)
    expected = REFERENCE.quantize_channels(given)
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("rows", "width", "count"), [(1, 32, 2), (7, 576, 4), (3, 1536, 32)])
def test_transforms_are_those_of_the_reference(
    rows: int, width: int, count: int, threads: int
) -> None:
    given = torch.randn(rows, width, generator=torch.Generator().manual_seed(width))
    before = given.clone()
    found = NativeBackend(threads).hadamard(given, count, 16, count**-0.5)
    assert torch.equal(found, REFERENCE.hadamard(given, count, 16, count**-0.5))
    assert torch.equal(given, before)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("shape", [(32, 16), (64, 64), (96, 48), (160, 576)])
def test_channels_lie_in_panels_beside_what_they_sum_to(
    shape: tuple[int, int], threads: int, *, gated: bool
) -> None:
    values, scales = REFERENCE.quantize_channels(weight(*shape))
    packed = pack(Int8Weight(values, scales), gated=gated, threads=threads)
    if gated:
        values = values.view(2, -1, GATES, shape[1]).transpose(0, 1).reshape(shape)
    padded = F.pad(values, (0, 0, 0, -shape[0] % PANEL))
    panels, starts = packed.arrays["panels"], packed.arrays["starts"]
    assert torch.equal(panels, padded.view(-1, PANEL, shape[1] // 4, 4).transpose(1, 2))
    assert torch.equal(starts, -128 * padded.sum(1, dtype=torch.int32))
