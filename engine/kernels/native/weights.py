"""Weights, laid out in the order in which the kernels in C read them; see product.h."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.kernels.grouped import GroupedWeight
from engine.kernels.int8 import Int8Weight
from engine.kernels.native.library import library
from engine.kernels.native.structs import GROUPED, INT8, KINDS, Weight

PANEL = 64  # output channels of a panel
HALF = 32  # the same of grouped weights
GATES = 16  # gates in a row, before as many of the channels that they multiply
SIZES = ("kind", "inputs", "outputs", "group", "bits")
ARRAYS = ("panels", "scales", "lows", "starts", "bias")

AnyWeight = Tensor | Int8Weight | GroupedWeight


@dataclass(frozen=True, slots=True)
class PackedWeight:
    """A weight [outputs, inputs] for the kernels; ``arrays`` own what ``struct`` points to."""

    struct: Weight
    arrays: Mapping[str, Tensor]

    @classmethod
    def of(cls, sizes: Mapping[str, int], arrays: Mapping[str, Tensor]) -> Self:
        """From some of `SIZES` and of `ARRAYS`; see ``weight`` of product.h."""
        struct = Weight(**sizes)
        for name, tensor in arrays.items():
            setattr(struct, name, tensor.data_ptr())
        return cls(struct, arrays)

    @property
    def sizes(self) -> dict[str, int]:
        """All of `SIZES`."""
        return {name: getattr(self.struct, name) for name in SIZES}


def pack(
    weight: AnyWeight, bias: Tensor | None = None, *, gated: bool = False, threads: int = 1
) -> PackedWeight:
    """Lay out a weight.

    Args:
        weight: [outputs, inputs], float32, bfloat16 or quantized; ``inputs`` is a multiple of 16,
            of grouped weights also of the group.
        bias: [outputs].
        gated: the first half of the outputs are gates of the second (SwiGLU). The two are
            interleaved, as END_GATE of product.h takes them.
        threads: CPU threads.
    """
    order = _interleave if gated else _as_is
    arrays: dict[str, Tensor]
    if isinstance(weight, GroupedWeight):
        kind, shape = GROUPED, weight.values.shape
        arrays = {
            "panels": _halves(order(weight.values), weight.bits),
            "scales": _by_half(order(weight.scales)),
            "lows": _by_half(order(weight.lows)),
        }
    elif isinstance(weight, Int8Weight):
        kind, shape = INT8, weight.values.shape
        panels, starts = _pack_int8(weight.values, gated=gated, threads=threads)
        arrays = {"panels": panels, "scales": _padded(order(weight.scales)), "starts": starts}
    else:
        kind, shape = KINDS[weight.dtype], weight.shape
        arrays = {"panels": _panels(order(weight.detach()), 4 // weight.element_size())}
    if bias is not None:
        arrays["bias"] = _padded(order(bias.detach().float()))
    sizes = {"kind": kind, "outputs": shape[0], "inputs": shape[1]}
    if isinstance(weight, GroupedWeight):
        sizes |= {"group": weight.group, "bits": weight.bits}
    return PackedWeight.of(sizes, arrays)


def _pack_int8(values: Tensor, *, gated: bool, threads: int) -> tuple[Tensor, Tensor]:
    """Panels, and `Weight.starts`."""
    native = library()
    assert native is not None, "ask whether the kernels are available first"
    values = values.contiguous()
    outputs, inputs = values.shape
    if inputs % 4 or (gated and outputs % (2 * GATES)):
        raise ValueError(f"A weight of {outputs} x {inputs} does not divide into panels.")
    padded = outputs + -outputs % PANEL
    panels = torch.empty(padded // PANEL, inputs // 4, PANEL, 4, dtype=torch.int8)
    starts = torch.empty(padded, dtype=torch.int32)
    native.pack_int8(
        values.data_ptr(),
        outputs,
        inputs,
        gated,
        panels.data_ptr(),
        starts.data_ptr(),
        threads,
    )
    return panels, starts


def _as_is(rows: Tensor) -> Tensor:
    return rows


def _interleave(rows: Tensor) -> Tensor:
    """All gates, then all others → 16 gates, 16 others, and so on."""
    halves = rows.view(2, -1, GATES, *rows.shape[1:])
    return halves.transpose(0, 1).reshape(rows.shape)


def _panels(weight: Tensor, together: int) -> Tensor:
    """[outputs, inputs] → [panels, inputs / together, 64, together], padded with zeros."""
    return _laid_out(weight, PANEL, together)


def _halves(values: Tensor, bits: int) -> Tensor:
    """uint8 [outputs, inputs] → [halves, inputs / 4, 32, 4], 4 bits: two inputs a byte."""
    laid = _laid_out(values, HALF, 4, rows=PANEL)
    if bits == 8:
        return laid
    return laid[:, 0::2] | laid[:, 1::2] << 4


def _laid_out(weight: Tensor, channels: int, together: int, rows: int | None = None) -> Tensor:
    outputs, inputs = weight.shape
    padded = F.pad(weight, (0, 0, 0, -outputs % (rows or channels)))
    return padded.view(-1, channels, inputs // together, together).transpose(1, 2).contiguous()


def _by_half(scales: Tensor) -> Tensor:
    """[outputs, groups] → float32 [halves, groups, 32]."""
    padded = F.pad(scales.float(), (0, 0, 0, -scales.shape[0] % PANEL))
    return padded.view(-1, HALF, scales.shape[1]).transpose(1, 2).contiguous()


def _padded(values: Tensor) -> Tensor:
    return F.pad(values, (0, -values.shape[0] % PANEL)).contiguous()
