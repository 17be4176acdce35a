"""Triton's products of 8-bit activations and weights, dense ones, and float8 rounding."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.kernels.fused.tensors import Activations
from engine.kernels.fused.weights import Float8Weight, quantize_float8
from engine.kernels.int8 import Int8Weight
from engine.kernels.triton.launch import INTERPRETED
from engine.kernels.triton.products.configuration import Configuration, configuration
from engine.kernels.triton.products.launches import multiply_eight_bits
from engine.kernels.triton.products.products import TritonProducts, library_serves

# The interpreter computes with numpy, which warns of what a device does silently.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")

GPU = torch.cuda.is_available() and not INTERPRETED
DEVICE = torch.device("cuda" if GPU else "cpu")
CAPABILITY = torch.cuda.get_device_capability() if GPU else (9, 0)
FLOAT8 = torch.float8_e4m3fn


def uniform(*shape: int) -> Tensor:
    return torch.rand(*shape, device=DEVICE) + 0.1


def bytes_of(*shape: int) -> Tensor:
    return torch.randint(-128, 128, shape, dtype=torch.int8, device=DEVICE)


def float8_of(*shape: int) -> Tensor:
    return (torch.randn(*shape, device=DEVICE) * 50).to(FLOAT8)


def untouched(rows: int, outputs: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.full((rows, outputs), torch.nan, dtype=dtype, device=DEVICE)


def exact_int8(x: Activations, weight: Int8Weight) -> Tensor:
    """int64 sums, scaled as the kernels say they scale."""
    assert x.scales is not None
    sums = x.values.cpu().long() @ weight.values.cpu().long().T
    return sums.float() * (x.scales.cpu()[:, None] * weight.scales.cpu())


def exact_float8(x: Activations, weight: Float8Weight) -> Tensor:
    assert x.scales is not None
    sums = x.values.double() @ weight.values.double().T
    return sums * x.scales.double()[:, None] * weight.scales.double()


def expect_close(out: Tensor, exact: Tensor, tolerance: float) -> None:
    """No element is further off than a share of the largest."""
    assert out.isfinite().all()
    assert (out.double().cpu() - exact.cpu()).abs().max() <= tolerance * exact.abs().max()


@pytest.mark.parametrize(
    ("rows", "outputs", "inputs"),
    [
        (1, 1, 16),
        (5, 70, 80),
        (16, 64, 512),
        (17, 130, 576),
        (33, 65, 272),
        (70, 129, 48),
        (129, 200, 144),
    ],
)
def test_an_int8_product_is_exact_to_the_bit(rows: int, outputs: int, inputs: int) -> None:
    x = Activations(bytes_of(rows, inputs), uniform(rows))
    weight = Int8Weight(bytes_of(outputs, inputs), uniform(outputs))
    products = TritonProducts(DEVICE, torch.float16, 256)
    packed, out = products.pack(weight), untouched(rows, outputs)
    products.product(x, packed, None, out)
    assert torch.equal(out.cpu(), exact_int8(x, weight))


@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(3, 40, 8192), (40, 72, 2112)])
def test_inputs_that_are_split_leave_no_trace(rows: int, outputs: int, inputs: int) -> None:
    found = configuration((9, 0), "int8", rows, outputs, inputs)
    assert found.splits > 1
    x = Activations(bytes_of(rows, inputs), uniform(rows))
    weight = Int8Weight(bytes_of(outputs, inputs), uniform(outputs))
    workspace, out = untouched(found.splits, rows * outputs).view(-1), untouched(rows, outputs)
    multiply_eight_bits(x, weight, None, out, found, workspace, 8)
    assert torch.equal(out.cpu(), exact_int8(x, weight))


@pytest.mark.parametrize("splits", [2, 3, 8])
@pytest.mark.parametrize("weight_left", [False, True])
def test_any_number_of_splits_adds_up_even_where_some_are_empty(
    splits: int, weight_left: bool
) -> None:
    x = Activations(bytes_of(20, 320), uniform(20))
    weight = Int8Weight(bytes_of(50, 320), uniform(50))
    found = Configuration(16, 32, 64, weight_left, splits, stages=2)
    workspace, out = untouched(splits, 20 * 50).view(-1), untouched(20, 50)
    multiply_eight_bits(x, weight, None, out, found, workspace, 8)
    assert torch.equal(out.cpu(), exact_int8(x, weight))


@pytest.mark.skipif(CAPABILITY < (9, 0), reason="tensor descriptors need capability 9.0")
@pytest.mark.parametrize("dtype", [torch.int8, FLOAT8])
@pytest.mark.parametrize(("rows", "outputs"), [(1, 16), (70, 130), (200, 100)])
def test_few_programs_take_all_tiles_by_descriptors(
    dtype: torch.dtype, rows: int, outputs: int
) -> None:
    found = Configuration(64, 64, 64, stages=2, band=2, descriptors=True)
    out = untouched(rows, outputs)
    if dtype == torch.int8:
        x = Activations(bytes_of(rows, 144), uniform(rows))
        weight = Int8Weight(bytes_of(outputs, 144), uniform(outputs))
        multiply_eight_bits(x, weight, None, out, found, out, 3)
        assert torch.equal(out.cpu(), exact_int8(x, weight))
    else:
        x = Activations(float8_of(rows, 144), uniform(rows))
        narrow = Float8Weight(float8_of(outputs, 144), uniform(outputs))
        multiply_eight_bits(x, narrow, None, out, found, out, 3)
        expect_close(out, exact_float8(x, narrow), 1e-3 if GPU else 1e-6)


@pytest.mark.parametrize("rows", [7, 40, 140])
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_a_float8_product_is_that_of_its_numbers(rows: int, capability: tuple[int, int]) -> None:
    if capability > CAPABILITY:
        pytest.skip("this card has no products of float8")
    x = Activations(float8_of(rows, 336), uniform(rows))
    weight = Float8Weight(float8_of(77, 336), uniform(77))
    products = TritonProducts(DEVICE, torch.float16, 256, capability=capability)
    packed, out = products.pack(weight), untouched(rows, 77)
    products.product(x, packed, None, out)
    # Tensor cores of 9.0 sum float8 in fewer bits.
    expect_close(out, exact_float8(x, weight), 1e-3 if GPU else 1e-6)


def test_every_float8_is_widened_to_itself() -> None:
    numbers = torch.arange(256, dtype=torch.uint8, device=DEVICE).view(FLOAT8)
    finite = torch.where(numbers.float().isnan(), 0.0, numbers.float()).to(FLOAT8)
    x = Activations(finite[None], torch.ones(1, device=DEVICE))
    ones = Float8Weight(torch.eye(256, device=DEVICE).to(FLOAT8), torch.ones(256, device=DEVICE))
    found = Configuration(16, 64, 64, True, stages=2)
    out = untouched(1, 256)
    multiply_eight_bits(x, ones, None, out, found, out, 8, widened=True)
    assert torch.equal(out[0].cpu(), finite.float().cpu())


def test_a_float8_nan_is_no_number_afterwards() -> None:
    x = Activations(float8_of(2, 64), uniform(2))
    x.values.view(torch.uint8)[0, 5] = 0x7F
    weight = Float8Weight(float8_of(16, 64), uniform(16))
    found = Configuration(16, 16, 64, True, stages=2)
    out = uniform(2, 16)
    multiply_eight_bits(x, weight, None, out, found, out, 8, widened=True)
    assert out[0].isnan().all()
    assert out[1].isfinite().all()


@pytest.mark.parametrize("splits", [1, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_bias_is_added_and_the_sum_rounded_once(splits: int, dtype: torch.dtype) -> None:
    x = Activations(bytes_of(9, 256), uniform(9) / 64)
    weight = Int8Weight(bytes_of(30, 256), uniform(30) / 64)
    bias = torch.randn(30, device=DEVICE).half()
    found = Configuration(16, 16, 64, splits=splits, stages=2)
    workspace, out = untouched(splits, 9 * 30).view(-1), untouched(9, 30, dtype)
    multiply_eight_bits(x, weight, bias, out, found, workspace, 8)
    exact = exact_int8(x, weight) + bias.float().cpu()
    rounding = 2**-11 if dtype == torch.float16 else 2**-22
    torch.testing.assert_close(out.float().cpu(), exact, rtol=rounding, atol=1e-6)


def test_rows_of_padding_are_neither_read_nor_written() -> None:
    values = float8_of(32, 64)
    values[3:].view(torch.uint8).fill_(0x7F)
    x = Activations(values, uniform(32)).rows(3)
    weight = Float8Weight(float8_of(16, 64), uniform(16))
    out = torch.full((32, 16), 7.0, device=DEVICE)
    found = Configuration(16, 16, 64, True, stages=2)
    multiply_eight_bits(x, weight, None, out[:3], found, out, 8, widened=True)
    expect_close(out[:3], exact_float8(x, weight), 1e-6)
    assert (out[3:] == 7).all()


def test_no_rows_make_no_product() -> None:
    products = TritonProducts(DEVICE, torch.float16, 16)
    int8 = products.pack(Int8Weight(bytes_of(8, 16), uniform(8)))
    products.product(Activations(bytes_of(0, 16), uniform(0)), int8, None, untouched(0, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("biased", [False, True])
def test_a_dense_product_is_written_where_it_belongs(dtype: torch.dtype, biased: bool) -> None:
    x, weight = (torch.randn(n, 96, device=DEVICE).half() for n in (5, 40))
    bias = torch.randn(40, device=DEVICE).half() if biased else None
    products, out = TritonProducts(DEVICE, torch.float16, 8), untouched(5, 40, dtype)
    products.product(Activations(x), products.pack(weight), bias, out)
    exact = x.double() @ weight.double().T + (0 if bias is None else bias.double())
    expect_close(out, exact, 2e-3)


def test_float8_rounding_keeps_the_largest_and_zero() -> None:
    weight = torch.randn(4100, 24, device=DEVICE).half()
    weight[7] = 0
    rounded = quantize_float8(weight)
    assert rounded.scales[7] == 1
    assert (rounded.values[7].float() == 0).all()
    largest = rounded.values.float().abs().amax(1)
    assert (largest[torch.arange(4100, device=DEVICE) != 7] == 448).all()
    error = (rounded.dequantize() - weight.float()).abs()
    # Half of the last of 3 bits, or of the smallest step.
    step = torch.maximum(weight.float().abs() * 2**-4, rounded.scales[:, None] * 2**-10)
    assert (error <= step * 1.001).all()


@pytest.mark.parametrize(
    ("capability", "rows", "outputs", "inputs", "dtype", "expected"),
    [
        ((9, 0), 256, 4096, 4096, torch.bfloat16, True),
        ((8, 9), 256, 4096, 4096, torch.bfloat16, True),
        ((8, 0), 256, 4096, 4096, torch.bfloat16, False),
        ((9, 0), 255, 4096, 4096, torch.bfloat16, False),
        ((9, 0), 256, 4100, 4096, torch.bfloat16, False),
        ((9, 0), 256, 4096, 4104, torch.bfloat16, False),
        ((9, 0), 256, 4096, 4096, torch.float32, False),
    ],
)
def test_torch_multiplies_float8_where_it_can(
    capability: tuple[int, int],
    rows: int,
    outputs: int,
    inputs: int,
    dtype: torch.dtype,
    expected: bool,
) -> None:
    assert library_serves(capability, rows, outputs, inputs, dtype, None) is expected
    bias = torch.zeros(outputs)
    assert library_serves(capability, rows, outputs, inputs, dtype, bias) is False
