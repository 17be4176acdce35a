"""Cases of products, beside those of torch's libraries."""

from collections.abc import Iterator

import torch

from engine.kernels.fused.tensors import Activations
from engine.kernels.fused.weights import DeviceWeight, Float8Weight, Int4Weight
from engine.kernels.grouped import GroupedWeight
from engine.kernels.int8 import Int8Weight
from gpu.kernels.cases import EXACT, Case, Kit, Launch, Written
from gpu.kernels.inputs import FP8, INT8, LARGEST, Inputs

GROUP = 128
_FAST_SUMS = 2e-2  # float8 is summed up with 14 bits
_INT_MM_ROWS = 17  # fewest of torch._int_mm


def products(inputs: Inputs, outputs: int, width: int, rows: int) -> Iterator[Case]:
    """Of one size: bfloat16, then 8 bits and 4 beside it."""
    plain = product(inputs, rows, outputs, width, "bf16")
    yield plain
    for dtype in inputs.eight_bits:
        kind = "fp8" if dtype == FP8 else "int8"
        yield product(inputs, rows, outputs, width, kind, plain)
        if not inputs.toy and (dtype == FP8 or rows >= _INT_MM_ROWS):
            yield library(inputs, rows, outputs, width, dtype, plain)
    yield product(inputs, rows, outputs, width, "int4", plain)


def four_bits(inputs: Inputs, outputs: int, width: int, rows: int, least: float) -> Iterator[Case]:
    """Where weights of 4 bits are held to marks."""
    plain = product(inputs, rows, outputs, width, "bf16")
    yield plain
    yield product(inputs, rows, outputs, width, "int4", plain, least)


def _weight(inputs: Inputs, outputs: int, width: int, kind: str) -> DeviceWeight:
    if kind == "bf16":
        return inputs.normal(outputs, width)
    if kind == "int4":
        steps = inputs.uniform(outputs, -(-width // GROUP)) * 0.1 + 0.1
        return GroupedWeight(inputs.digits(outputs, width), steps, -8 * steps, 4)
    scales = (inputs.uniform(outputs) + 0.5) / 127
    if kind == "int8":
        return Int8Weight(inputs.normal(outputs, width, dtype=INT8), scales)
    return Float8Weight(inputs.normal(outputs, width, dtype=FP8), scales)


def _weight_bytes(outputs: int, width: int, itemsize: int, kind: str) -> int:
    if kind == "int4":
        return outputs * width // 2 + 4 * outputs * (width // GROUP)
    return outputs * width * itemsize


def _rows(inputs: Inputs, rows: int, width: int, dtype: torch.dtype) -> Activations:
    values = inputs.normal(rows, width, dtype=dtype)
    if dtype.itemsize > 1:
        return Activations(values)
    return Activations(values, (inputs.uniform(rows) + 0.5) * (3 / LARGEST[dtype]))


def product(
    inputs: Inputs,
    rows: int,
    outputs: int,
    width: int,
    kind: str,
    beside: Case | None = None,
    least: float = 0.0,
) -> Case:
    """Activations [rows, width] times a weight [outputs, width]."""
    dtype = {"int8": INT8, "fp8": FP8}.get(kind, inputs.dtype)

    def make() -> tuple[Launch, Written]:
        weight = _weight(inputs, outputs, width, kind)
        x = _rows(inputs, rows, width, dtype)
        out = inputs.normal(rows, outputs)
        packed: dict[Kit, DeviceWeight] = {}

        def launch(kit: Kit) -> None:
            if kit not in packed:
                packed[kit] = kit.fused.pack(weight)
            kit.fused.product(x, packed[kit], None, out)

        return launch, lambda: [out]

    return Case(
        f"product {rows:,} x {outputs:,} x {width:,} {kind}",
        _weight_bytes(outputs, width, dtype.itemsize, kind) + rows * width * dtype.itemsize,
        inputs.dtype.itemsize * rows * outputs,
        2 * rows * outputs * width,
        dtype,
        make,
        most_error=_FAST_SUMS if kind == "fp8" else EXACT,
        beside=beside,
        least_gain=least,
    )


def library(
    inputs: Inputs, rows: int, outputs: int, width: int, dtype: torch.dtype, beside: Case
) -> Case:
    """torch's own product of 8 bits: `_int_mm` without scales, `_scaled_mm` by row and channel."""

    def make() -> tuple[Launch, Written]:
        a = inputs.normal(rows, width, dtype=dtype)
        b = inputs.normal(outputs, width, dtype=dtype).t()
        if dtype == INT8:
            sums = torch.empty(rows, outputs, dtype=torch.int32, device=inputs.device)
            return lambda kit: torch._int_mm(a, b, out=sums), lambda: []
        of_rows, of_outputs = inputs.uniform(rows)[:, None], inputs.uniform(outputs)[None]
        out = inputs.normal(rows, outputs)

        def launch(kit: Kit) -> None:
            torch._scaled_mm(
                a,
                b,
                scale_a=of_rows,
                scale_b=of_outputs,
                out_dtype=out.dtype,
                use_fast_accum=True,
                out=out,
            )

        return launch, lambda: []

    name = "_int_mm" if dtype == INT8 else "_scaled_mm"
    return Case(
        f"torch.{name} {rows:,} x {outputs:,} x {width:,}",
        (rows + outputs) * width,
        (4 if dtype == INT8 else 2) * rows * outputs,
        2 * rows * outputs * width,
        dtype,
        make,
        beside=beside,
        library=True,
    )


def unpacking(inputs: Inputs, outputs: int, width: int) -> Case:
    """A weight of 4 bits, made dense for a step."""

    def make() -> tuple[Launch, Written]:
        weight = _weight(inputs, outputs, width, "int4")
        dense = inputs.normal(outputs, width)
        packed: dict[Kit, DeviceWeight] = {}

        def launch(kit: Kit) -> None:
            if kit not in packed:
                packed[kit] = kit.fused.pack(weight)
            match packed[kit]:
                case Int4Weight() as four:
                    from engine.kernels.triton.products.launches import unpack_four_bits

                    unpack_four_bits(four, dense)
                case GroupedWeight() as grouped:
                    dense.copy_(grouped.dequantize())
                case _:
                    raise ValueError("This weight is too small to be kept in 4 bits.")

        return launch, lambda: [dense]

    return Case(
        f"unpack {outputs:,} x {width:,}",
        _weight_bytes(outputs, width, 1, "int4"),
        outputs * width * inputs.dtype.itemsize,
        0,
        inputs.dtype,
        make,
    )
