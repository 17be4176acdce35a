"""Which kernel serves a product, and the workspaces they share."""

import torch
from torch import Tensor

from engine.kernels.expect import expect
from engine.kernels.fused.tensors import Activations
from engine.kernels.fused.weights import DeviceWeight, Float8Weight, Int4Weight
from engine.kernels.grouped import GroupedWeight
from engine.kernels.int8 import Int8Weight
from engine.kernels.triton.launch import collecting
from engine.kernels.triton.products.configuration import (
    KERNEL_ROWS,
    SPLIT_ROWS,
    Capability,
    Kind,
    bucket,
    card,
    configuration,
)
from engine.kernels.triton.products.launches import (
    multiply_eight_bits,
    multiply_four_bits,
    unpack_four_bits,
)
from engine.kernels.triton.products.layout import pack_int4, unit_of
from engine.kernels.triton.products.switch import packed_rows

LIBRARY_ROWS = 256
"""From so many rows on, `torch._scaled_mm` multiplies float8."""

_ROWS = 4096  # of a weight that are made dense at a time


class TritonProducts:
    """`FusedKernels.pack` and `FusedKernels.product` in Triton.

    Workspaces grow when weights are packed and never later, so that their addresses stay.

    Args:
        device: where weights and activations are.
        dtype: the model's.
        rows: most rows of a product.
        capability: of the device; ``None`` asks it. Off a GPU it is 9.0.
        dense_elements: weights of 4 bits with no more elements are kept dense; ``None`` is what
            `switch` says.
    """

    def __init__(
        self,
        device: torch.device,
        dtype: torch.dtype,
        rows: int,
        *,
        capability: Capability | None = None,
        dense_elements: int | None = None,
    ) -> None:
        on_gpu = device.type == "cuda"
        if capability is None:
            capability = torch.cuda.get_device_capability(device) if on_gpu else (9, 0)
        self._capability, self._dtype, self._most = capability, dtype, rows
        self._dense_elements = dense_elements
        self._processors = (
            torch.cuda.get_device_properties(device).multi_processor_count
            if on_gpu
            else card(capability).processors
        )
        self._splits = torch.empty(0, dtype=torch.float32, device=device)
        self._sums = torch.empty(0, dtype=torch.float32, device=device)
        self._unpacked = torch.empty(0, dtype=dtype, device=device)

    # -- weights -----------------------------------------------------------------------------------

    def pack(self, weight: DeviceWeight) -> DeviceWeight:
        """See `FusedKernels.pack`.

        A `GroupedWeight` of 8 bits is made dense, in the model's dtype: it is rounded once, as a
        dense checkpoint's weights are. So is one of 4 bits that `switch` says is no faster, or
        whose groups have no packed layout.
        """
        match weight:
            case Int8Weight():
                self._reserve("int8", *weight.values.shape)
            case Float8Weight():
                self._reserve("float8", *weight.values.shape)
            case GroupedWeight():
                outputs, inputs = weight.values.shape
                if weight.bits != 4 or unit_of(inputs, weight.group) is None:
                    return self._dense(weight)
                if self._packed_rows(outputs, inputs) == 0:
                    return self._dense(weight)
                packed = pack_int4(weight, self._dtype)
                self._reserve_int4(packed)
                return packed
            case Int4Weight():
                self._reserve_int4(weight)
            case Tensor():
                pass
        return weight

    def _packed_rows(self, outputs: int, inputs: int) -> int:
        """Most rows for which a weight of 4 bits is multiplied packed."""
        if self._dense_elements is None:
            return packed_rows(self._capability, outputs, inputs)
        if outputs * inputs <= self._dense_elements:
            return 0
        return packed_rows(self._capability, outputs, inputs) or SPLIT_ROWS

    def _dense(self, weight: GroupedWeight) -> Tensor:
        """The weight in the model's dtype."""
        dense = torch.empty(weight.values.shape, dtype=self._dtype, device=weight.values.device)
        for start in range(0, len(dense), _ROWS):
            rows = slice(start, start + _ROWS)
            some = GroupedWeight(
                weight.values[rows], weight.scales[rows], weight.lows[rows], weight.bits
            )
            dense[rows] = some.dequantize()
        return dense

    def _reserve(self, kind: Kind, outputs: int, inputs: int, most: int = SPLIT_ROWS) -> None:
        """Make room for the sums of every product with such a weight."""
        rows = KERNEL_ROWS
        while rows <= bucket(min(most, self._most)):
            found = configuration(self._capability, kind, rows, outputs, inputs)
            if found.splits > 1:
                self._splits = _grown(self._splits, found.splits * rows * outputs)
            rows *= 2

    def _reserve_int4(self, weight: Int4Weight) -> None:
        outputs, inputs = weight.outputs, weight.inputs
        most = self._packed_rows(outputs, inputs)
        self._reserve("int4", outputs, inputs, most)
        if weight.lows is not None:
            self._sums = _grown(self._sums, len(weight.lows) * min(most, self._most))
        if self._most > most:
            self._unpacked = _grown(self._unpacked, outputs * inputs)

    # -- products ----------------------------------------------------------------------------------

    def product(
        self, x: Activations, weight: DeviceWeight, bias: Tensor | None, out: Tensor
    ) -> None:
        """See `FusedKernels.product`.

        Raises:
            ValueError: a shape, a dtype or a layout is wrong, or the weight is not from `pack`.
        """
        match weight:
            case Int8Weight() | Float8Weight():
                _check(x, weight.values.shape, weight.values.dtype, out)
                self._eight_bits(x, weight, bias, out)
            case Int4Weight():
                _check(x, (weight.outputs, weight.inputs), self._dtype, out)
                self._four_bits(x.values, weight, bias, out)
            case GroupedWeight():
                raise ValueError("a GroupedWeight is multiplied once it is packed.")
            case Tensor():
                _check(x, weight.shape, weight.dtype, out)
                _dense_product(x.values, weight, bias, out)

    def _eight_bits(
        self, x: Activations, weight: Int8Weight | Float8Weight, bias: Tensor | None, out: Tensor
    ) -> None:
        rows, (outputs, inputs) = len(x.values), weight.values.shape
        kind: Kind = "int8" if isinstance(weight, Int8Weight) else "float8"
        if kind == "float8" and library_serves(
            self._capability, rows, outputs, inputs, out.dtype, bias
        ):
            assert x.scales is not None
            if collecting():
                return
            torch._scaled_mm(
                x.values,
                weight.values.t(),
                scale_a=x.scales[:, None],
                scale_b=weight.scales[None],
                bias=bias,
                out_dtype=out.dtype,
                use_fast_accum=True,
                out=out,
            )
            return
        found = configuration(self._capability, kind, rows, outputs, inputs, out.dtype.itemsize)
        multiply_eight_bits(
            x,
            weight,
            bias,
            out,
            found,
            self._splits,
            self._processors,
            widened=kind == "float8" and self._capability < (8, 9),
        )

    def _four_bits(self, x: Tensor, weight: Int4Weight, bias: Tensor | None, out: Tensor) -> None:
        rows, outputs, inputs = len(x), weight.outputs, weight.inputs
        most = self._packed_rows(outputs, inputs)
        if rows > most:
            if len(self._unpacked) < outputs * inputs:
                raise ValueError("unpacking needs a larger workspace: was the weight packed?")
            dense = self._unpacked[: outputs * inputs].view(outputs, inputs)
            unpack_four_bits(weight, dense)
            _dense_product(x, dense, bias, out)
            return
        found = configuration(self._capability, "int4", rows, outputs, inputs)
        sums = self._sums
        if weight.lows is not None:
            sums = sums[: len(weight.lows) * min(most, self._most)]
        multiply_four_bits(x, weight, bias, out, found, self._splits, sums)


def library_serves(
    capability: Capability,
    rows: int,
    outputs: int,
    inputs: int,
    dtype: torch.dtype,
    bias: Tensor | None,
) -> bool:
    """Whether `torch._scaled_mm` multiplies float8 by row and channel, and is worth it.

    It wants multiples of 16, and writes bfloat16 with a bias of bfloat16.
    """
    return (
        capability >= (8, 9)
        and rows >= LIBRARY_ROWS
        and outputs % 16 == inputs % 16 == 0
        and dtype == torch.bfloat16
        and (bias is None or bias.dtype == torch.bfloat16)
    )


def _check(x: Activations, shape: tuple[int, ...], dtype: torch.dtype, out: Tensor) -> None:
    """Refuse what the kernels would read or write out of place."""
    outputs, inputs = shape
    expect("x", x.values, (None, inputs), dtype)
    expect("out", out, (len(x.values), outputs))
    if (x.scales is None) is not (dtype.itemsize > 1):
        raise ValueError("x has scales if and only if it has 8 bits.")
    if not (x.values.is_contiguous() and out.is_contiguous()):
        raise ValueError("x and out must be contiguous.")


def _dense_product(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """out = x weightᵀ + bias in torch; nothing is allocated on a GPU."""
    if collecting():
        return
    across = weight.t()
    if out.dtype == x.dtype:
        if bias is None:
            torch.mm(x, across, out=out)
        else:
            torch.addmm(bias, x, across, out=out)
        return
    if x.is_cuda:
        torch.mm(x, across, out_dtype=out.dtype, out=out)
    else:  # torch has no such product on a CPU
        out.copy_(torch.mm(x, across))
    if bias is not None:
        out.add_(bias)


def _grown(workspace: Tensor, elements: int) -> Tensor:
    """The workspace, or a larger one."""
    return workspace if len(workspace) >= elements else workspace.new_empty(elements)
