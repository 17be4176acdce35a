"""The structs that the kernels in C take, as rows.h, product.h, attention.h and decoder.h declare
them. `engine.kernels.native.library` compares their sizes when it loads the library.
"""

import ctypes
from ctypes import c_float, c_int32, c_int64, c_void_p

import torch

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
INT8, GROUPED = 2, 3
# The passes of a layer, in order, and the head: NORM and so on of decoder.h.
PASSES = (
    "norm",
    "qkv",
    "cache",
    "attention",
    "merge",
    "output",
    "norm 2",
    "gate and up",
    "hadamard",
    "down",
    "head",
)
# What becomes of a product: END_PUT and so on of product.h.
PUT, ADD, GATE, ARGMAX = range(4)


def _fields(**kinds: str) -> list[tuple[str, type]]:
    """Fields in order, by type: ``int64="a b", pointer="c"``."""
    types = {"int64": c_int64, "int32": c_int32, "pointer": c_void_p, "float32": c_float}
    return [
        (name, types[kind.rstrip("_")]) for kind, names in kinds.items() for name in names.split()
    ]


class Rows(ctypes.Structure):
    """``rows``: encoded activations."""

    _fields_ = _fields(int64="kind width group", pointer="values scales sums")


class Weight(ctypes.Structure):
    """``weight``: a packed weight."""

    _fields_ = _fields(
        int64="kind inputs outputs group bits", pointer="panels scales lows starts bias"
    )


class Cache(ctypes.Structure):
    """``cache``: one layer's paged keys and values."""

    _fields_ = _fields(
        int64="kind heads kv_heads width tiles tile_bytes block_bytes query_bytes", pointer="memory"
    )


class Step(ctypes.Structure):
    """``step``: which tokens belong to which sequence, and where their keys are."""

    _fields_ = _fields(
        int64="tokens sequences stride",
        pointer="query_start contexts slots tables token_ids positions owners",
    )


class Shape(ctypes.Structure):
    """``shape``: what is the same in all layers."""

    _fields_ = _fields(int64="hidden inner hadamard", pointer="cosines sines", float32="eps scale")


class Layer(ctypes.Structure):
    """``layer``: one layer's weights and cache."""

    _fields_ = [
        *_fields(pointer="attention_norm feed_forward_norm query_norm key_norm"),
        *((name, Weight) for name in ("qkv", "output", "gate_up", "down")),
        ("kv", Cache),
    ]


class Buffers(ctypes.Structure):
    """``buffers``: memory that a step is computed in."""

    _fields_ = [
        *_fields(pointer="residual last wide queries"),
        *((name, Rows) for name in ("hidden", "attn_output", "inner", "final")),
        *_fields(pointer="seconds"),
    ]


class Argmax(ctypes.Structure):
    """``argmax``: the maximum of a row so far, and its channel."""

    _fields_ = _fields(float32="value", int32="channel")


ALL: tuple[type[ctypes.Structure], ...] = (
    Rows,
    Weight,
    Cache,
    Step,
    Shape,
    Layer,
    Buffers,
    Argmax,
)
