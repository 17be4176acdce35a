"""Every launch that products of well-known models need, to be compiled or checked ahead of time."""

from collections.abc import Iterator

import torch

from engine.kernels.fused.kernels import activations
from engine.kernels.fused.weights import Float8Weight, Int4Weight
from engine.kernels.int8 import Int8Weight
from engine.kernels.triton.launch import Launch, collect
from engine.kernels.triton.products.configuration import Capability
from engine.kernels.triton.products.layout import PADDED, unit_of
from engine.kernels.triton.products.products import TritonProducts, library_serves
from engine.kernels.triton.products.switch import packed_rows

SHAPES = {
    "Llama-3.1-8B": ((6144, 4096), (4096, 4096), (28672, 4096), (4096, 14336), (128256, 4096)),
    "Qwen3-0.6B": ((4096, 1024), (1024, 2048), (6144, 1024), (1024, 3072), (151936, 1024)),
    "SmolLM2-135M": ((960, 576), (576, 576), (3072, 576), (576, 1536), (49152, 576)),
    "16384": ((16384, 16384),),
}
"""Outputs and inputs of every weight: queries with keys and values, their output, gate with up,
down, and the head."""

_HEAD = 32768  # outputs from which on a weight is a head, whose results are float32
_ROWS = tuple(2**exponent for exponent in range(4, 15))
_META = torch.device("meta")


def shipped_launches(
    capability: Capability, dtype: torch.dtype = torch.bfloat16
) -> Iterator[Launch]:
    """Launches for `SHAPES` at 16 to 16,384 rows, over tensors without memory.

    Args:
        capability: of the device they are for.
        dtype: the model's.
    """
    for shapes in SHAPES.values():
        for outputs, inputs in shapes:
            yield from _of_shape(capability, dtype, outputs, inputs)


def _of_shape(
    capability: Capability, dtype: torch.dtype, outputs: int, inputs: int
) -> Iterator[Launch]:
    scales = torch.empty(outputs, device=_META)
    int8 = torch.empty(outputs, inputs, dtype=torch.int8, device=_META)
    float8 = torch.empty(outputs, inputs, dtype=torch.float8_e4m3fn, device=_META)
    weights: list[Int8Weight | Float8Weight | Int4Weight] = [
        Int8Weight(int8, scales),
        Float8Weight(float8, scales),
    ]
    if packed_rows(capability, outputs, inputs) and outputs < _HEAD:
        weights += [
            _int4(outputs, inputs, group, affine)
            for group in (32, 64, 128, inputs)
            for affine in (False, True)
            if inputs % group == 0
        ]
    for weight in weights:
        products = TritonProducts(_META, dtype, max(_ROWS), capability=capability)
        products.pack(weight)
        narrow = dtype if isinstance(weight, Int4Weight) else weight.values.dtype
        for rows in _ROWS:
            x = activations(rows, inputs, narrow, _META)
            head = outputs >= _HEAD
            out = torch.empty(rows, outputs, dtype=torch.float32 if head else dtype, device=_META)
            if isinstance(weight, Float8Weight) and library_serves(
                capability, rows, outputs, inputs, out.dtype, None
            ):
                continue
            with collect() as launches:
                products.product(x, weight, None, out)
            yield from launches


def _int4(outputs: int, inputs: int, group: int, affine: bool) -> Int4Weight:
    """A packed weight without memory."""
    unit = unit_of(inputs, group)
    assert unit is not None
    units, padded = -(-inputs // unit), -(-outputs // PADDED) * PADDED
    packed = torch.empty(units, padded, unit // 2, dtype=torch.uint8, device=_META)
    numbers = torch.empty(max(1, units * unit // group), padded, dtype=torch.float16, device=_META)
    return Int4Weight(packed, numbers, numbers if affine else None, outputs, inputs, group)
