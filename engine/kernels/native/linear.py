"""A product in C, by itself; see product.h."""

from ctypes import byref

import torch
from torch import Tensor

from engine.kernels.expect import expect
from engine.kernels.native.library import library
from engine.kernels.native.structs import GATE, GROUPED, INT8, KINDS, PUT, Rows, Weight
from engine.kernels.native.weights import PackedWeight

ITEM_BYTES = {KINDS[torch.float32]: 4, KINDS[torch.bfloat16]: 2, INT8: 1, GROUPED: 1}


class EncodedRows:
    """Room for activations in the form that a weight takes.

    Args:
        tokens: rows.
        weight: which multiplies them.
    """

    def __init__(self, tokens: int, weight: Weight) -> None:
        kind, width, group = weight.kind, weight.inputs, weight.group
        groups = width // group if kind == GROUPED else 1
        self._tensors = {
            "values": torch.empty(tokens, width * ITEM_BYTES[kind], dtype=torch.uint8),
            "scales": torch.empty(tokens, groups),
            "sums": torch.empty(tokens, groups),
        }
        places = {name: tensor.data_ptr() for name, tensor in self._tensors.items()}
        self.struct = Rows(kind=kind, width=width, group=group, **places)


def linear(
    x: Tensor, weight: PackedWeight, *, gated: bool = False, threads: int | None = None
) -> Tensor:
    """x weightᵀ + bias; or, of a weight packed as ``gated``, silu(first half) · second half.

    Args:
        x: float32 [T, inputs], contiguous; rounded as the weight's kind wants it.
        weight: [outputs, inputs].
        threads: CPU threads; ``None`` is torch's number.

    Returns:
        float32 [T, outputs], half as wide where gated.

    Raises:
        ValueError: a shape or dtype is wrong.
    """
    expect("x", x, (None, weight.struct.inputs), torch.float32)
    if not x.is_contiguous():
        raise ValueError("x must be contiguous.")
    native = library()
    assert native is not None, "ask whether the kernels are available first"
    tokens, outputs = x.shape[0], weight.struct.outputs
    room = EncodedRows(tokens, weight.struct)
    out = torch.empty(tokens, outputs // 2 if gated else outputs)
    native.linear(
        x.data_ptr(),
        byref(room.struct),
        byref(weight.struct),
        tokens,
        GATE if gated else PUT,
        out.data_ptr(),
        threads or torch.get_num_threads(),
    )
    return out
