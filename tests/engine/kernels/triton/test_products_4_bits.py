"""Triton's products of weights of 4 bits: their layout, their sums, and when they are unpacked."""

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.gguf.groups import read_groups
from engine.gguf.types import LAYOUT, GGMLType
from engine.kernels.fused.tensors import Activations
from engine.kernels.fused.weights import Int4Weight
from engine.kernels.grouped import GroupedWeight, quantize_groups
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.triton.launch import INTERPRETED
from engine.kernels.triton.products.configuration import Configuration, configuration
from engine.kernels.triton.products.launches import multiply_four_bits, unpack_four_bits
from engine.kernels.triton.products.layout import pack_int4
from engine.kernels.triton.products.products import TritonProducts

# The interpreter computes with numpy, which warns of what a device does silently.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")

GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = torch.device("cuda" if GPU else "cpu")
# (inputs, group): a unit with two groups, one, or a share of one; with a tail; whole channels.
GROUPS = [
    (128, 32),
    (96, 32),
    (192, 64),
    (256, 64),
    (256, 128),
    (512, 256),
    (384, 192),
    (256, 256),
    (80, 80),
    (576, 576),
]
SYMMETRIC = pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "lows"])


def rounded(outputs: int, inputs: int, group: int, symmetric: bool) -> GroupedWeight:
    weight = torch.randn(outputs, inputs, device=DEVICE) + 0.3
    return quantize_groups(ReferenceBackend(), weight, group, symmetric=symmetric)


def untouched(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full(shape, torch.nan, dtype=dtype, device=DEVICE)


def unpacked(weight: Int4Weight, dtype: torch.dtype = torch.float32) -> Tensor:
    out = untouched(weight.outputs, weight.inputs, dtype=dtype)
    unpack_four_bits(weight, out)
    return out


def multiplied(
    x: Tensor,
    weight: Int4Weight,
    found: Configuration,
    bias: Tensor | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The product with workspaces that hold no numbers before."""
    rows, out = len(x), untouched(len(x), weight.outputs, dtype=dtype)
    workspace = untouched(found.splits * rows * weight.outputs)
    sums = untouched(len(weight.scales) * (rows + 3))
    multiply_four_bits(x, weight, bias, out, found, workspace, sums)
    return out


def expect_close(out: Tensor, x: Tensor, weight: GroupedWeight, tolerance: float) -> None:
    """No element is further off than a share of what is summed."""
    wide = weight.dequantize().double()
    exact = x.double() @ wide.T
    most = (x.double().abs() @ wide.abs().T) * tolerance
    assert ((out.double() - exact).abs() <= most).all()


@SYMMETRIC
@pytest.mark.parametrize(("inputs", "group"), GROUPS)
def test_a_packed_weight_is_the_one_that_was_packed(
    inputs: int, group: int, symmetric: bool
) -> None:
    weight = rounded(36, inputs, group, symmetric)
    packed = pack_int4(weight, torch.float32)
    assert (packed.outputs, packed.inputs, packed.group) == (36, inputs, group)
    assert (packed.lows is None) is symmetric
    found, expected = unpacked(packed), weight.dequantize()
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    # Scales of 11 bits, of up to 15 steps.
    halved = unpacked(pack_int4(weight, torch.float16))
    steps = (16 * weight.scales + weight.lows.abs()).repeat_interleave(group, 1)
    assert ((halved - expected).abs() <= steps * 2**-11).all()


@pytest.mark.parametrize("type", [GGMLType.Q4_0, GGMLType.Q4_1])
def test_a_gguf_weight_loses_nothing(type: GGMLType) -> None:
    generator = np.random.default_rng(0)
    blocks = generator.integers(0, 256, (40 * 5, LAYOUT[type].nbytes), np.uint8)
    numbers = 1 if type == GGMLType.Q4_0 else 2
    halves = generator.standard_normal((40 * 5, numbers)).astype("<f2") / np.float16(50)
    halves[0], halves[1] = 0, 6e-8  # and one below the normal numbers
    blocks[:, : 2 * numbers] = halves.view(np.uint8)
    groups = read_groups(blocks.reshape(-1), type, (40, 160))
    values, scales, lows = (torch.from_numpy(x).to(DEVICE) for x in groups[:3])
    weight = GroupedWeight(values, scales, lows, groups.bits)
    packed = pack_int4(weight, torch.bfloat16)
    assert packed.scales.dtype == torch.float16
    assert (packed.lows is None) is (type == GGMLType.Q4_0)
    assert torch.equal(unpacked(packed), weight.dequantize())
    x = torch.randn(3, 160, device=DEVICE).half()
    found = multiplied(x, packed, Configuration(16, 64, 64, stages=2))
    expect_close(found, x, weight, 1e-6)


@pytest.mark.parametrize("scale", [3e-7, 1e6])
def test_scales_that_float16_does_not_hold_stay_in_float32(scale: float) -> None:
    weight = rounded(20, 64, 32, symmetric=False)
    weight.scales.mul_(scale)
    weight.lows.mul_(scale)
    packed = pack_int4(weight, torch.bfloat16)
    assert packed.scales.dtype == torch.float32
    torch.testing.assert_close(unpacked(packed), weight.dequantize(), rtol=1e-6, atol=scale * 1e-6)


@SYMMETRIC
@pytest.mark.parametrize("weight_left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(("inputs", "group"), GROUPS)
def test_a_product_is_that_of_the_numbers(
    inputs: int, group: int, weight_left: bool, symmetric: bool
) -> None:
    weight = rounded(70, inputs, group, symmetric)
    packed = pack_int4(weight, torch.float32)
    x = torch.randn(19, inputs, device=DEVICE).half()
    found = Configuration(16, 64, 64, weight_left, stages=2)
    expect_close(multiplied(x, packed, found), x, weight, 2e-6)


@SYMMETRIC
@pytest.mark.parametrize("splits", [2, 3, 8])
@pytest.mark.parametrize(("inputs", "group"), [(512, 32), (640, 128), (512, 256), (320, 320)])
def test_inputs_that_are_split_leave_no_trace(
    inputs: int, group: int, splits: int, symmetric: bool
) -> None:
    weight = rounded(40, inputs, group, symmetric)
    packed = pack_int4(weight, torch.float32)
    x = torch.randn(5, inputs, device=DEVICE).half()
    bias = torch.randn(40, device=DEVICE)
    found = Configuration(16, 64, 64, splits=splits, stages=2)
    expect_close(multiplied(x, packed, found, bias) - bias, x, weight, 2e-6)


@pytest.mark.parametrize("rows", [1, 16, 30, 64, 100, 129])
@pytest.mark.parametrize(
    "dtype",
    [
        torch.float16,
        torch.float32,
        pytest.param(
            torch.bfloat16,
            marks=pytest.mark.skipif(not GPU, reason="the interpreter multiplies no bfloat16"),
        ),
    ],
)
def test_every_shipped_tile_multiplies(rows: int, dtype: torch.dtype) -> None:
    weight = rounded(137, 256, 128, symmetric=True)
    packed = pack_int4(weight, dtype)
    x = torch.randn(rows, 256, device=DEVICE).to(dtype)
    found = configuration((9, 0), "int4", rows, 137, 256)
    tolerance = 2**-8 if dtype == torch.bfloat16 else 2**-11
    expect_close(multiplied(x, packed, found, dtype=dtype), x, weight, tolerance)


def test_float32_activations_keep_their_bits() -> None:
    weight = rounded(20, 96, 32, symmetric=False)
    x = torch.randn(4, 96, device=DEVICE)
    found = multiplied(x, pack_int4(weight, x.dtype), Configuration(16, 64, 64, stages=2))
    expect_close(found, x, weight, 1e-6)


def test_rows_of_padding_are_neither_read_nor_written() -> None:
    weight = rounded(20, 96, 32, symmetric=False)
    products = TritonProducts(DEVICE, torch.float16, 64, dense_elements=0)
    packed = products.pack(weight)
    x, out = untouched(32, 96, dtype=torch.float16), torch.full((32, 20), 7.0, device=DEVICE)
    x[:3] = torch.randn(3, 96)
    products.product(Activations(x[:3]), packed, None, out[:3])
    expect_close(out[:3], x[:3], weight, 1e-3)
    assert (out[3:] == 7).all()


@SYMMETRIC
def test_many_rows_are_multiplied_by_the_unpacked_weight(symmetric: bool) -> None:
    weight = rounded(50, 96, 32, symmetric)
    products = TritonProducts(DEVICE, torch.float16, 300, dense_elements=0)
    packed = products.pack(weight)
    assert isinstance(packed, Int4Weight)
    x = torch.randn(257, 96, device=DEVICE).half()
    bias = torch.randn(50, device=DEVICE).half()
    out = untouched(257, 50, dtype=torch.float16)
    products.product(Activations(x), packed, bias, out)
    dense = unpacked(packed, torch.float16)
    assert torch.equal(out, torch.addmm(bias, x, dense.t()))
    wide = untouched(257, 50)
    products.product(Activations(x), packed, None, wide)
    expect_close(wide, x, weight, 2e-3)


@SYMMETRIC
def test_weights_that_are_packed_one_after_the_other_share_workspaces(symmetric: bool) -> None:
    products = TritonProducts(DEVICE, torch.float16, 64, dense_elements=0)
    # The most splits come first, and the most groups last.
    shapes = ((70, 2048, 128), (200, 512, 512), (40, 1024, 32))
    weights = [rounded(*shape, symmetric) for shape in shapes]
    packed = [products.pack(weight) for weight in weights]
    for weight, one, rows in zip(weights, packed, (50, 4, 4), strict=True):
        x = torch.randn(rows, weight.values.shape[1], device=DEVICE).half()
        out = untouched(rows, len(weight.values))
        products.product(Activations(x), one, None, out)
        expect_close(out, x, weight, 1e-3)


def test_small_weights_and_those_without_a_layout_are_dense() -> None:
    products = TritonProducts(DEVICE, torch.float16, 64)
    small = rounded(20, 96, 32, symmetric=True)
    odd = rounded(20, 96, 16, symmetric=True)
    eight = quantize_groups(ReferenceBackend(), torch.randn(4100, 64, device=DEVICE), 32, bits=8)
    always = TritonProducts(DEVICE, torch.float16, 64, dense_elements=0)
    for packer, weight in ((products, small), (always, odd), (always, eight)):
        packed = packer.pack(weight)
        assert isinstance(packed, Tensor)
        assert torch.equal(packed, weight.dequantize().half())
    assert isinstance(always.pack(small), Int4Weight)
    with pytest.raises(ValueError, match="groups of 16"):
        pack_int4(odd, torch.float16)
    with pytest.raises(ValueError, match="packed"):
        always.product(Activations(untouched(1, 96)), small, None, untouched(1, 20))


def test_a_product_out_of_shape_or_place_is_refused() -> None:
    products = TritonProducts(DEVICE, torch.float16, 64, dense_elements=0)
    affine = products.pack(rounded(20, 1024, 32, symmetric=False))
    x, out = untouched(4, 1024, dtype=torch.float16), untouched(4, 20)
    wide = untouched(4, 40)
    for wrong, into in (
        (x[:3], out),
        (x[:, :512], out),
        (x.float(), out),
        (x, wide),
        (x, wide[:, ::2]),
        (untouched(8, 1024, dtype=torch.float16)[::2], out),
    ):
        with pytest.raises(ValueError, match="must be"):
            products.product(Activations(wrong), affine, None, into)
    with pytest.raises(ValueError, match="scales"):
        products.product(Activations(x, out[:, 0]), affine, None, out)
    with pytest.raises(ValueError, match="packed"):
        TritonProducts(DEVICE, torch.float16, 64).product(Activations(x), affine, None, out)
