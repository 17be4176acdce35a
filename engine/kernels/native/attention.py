"""`engine.kernels.attention` in C; see attention.c."""

import ctypes

import torch
from torch import Tensor

from engine.kernels.batch import AttentionBatch
from engine.kernels.native.library import LANES, SUFFIXES, available, library

_MAX_WIDTH = 256
_MAX_ROWS = 12


class _Shape(ctypes.Structure):
    """``shape`` of attention.c."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in (
                "heads",
                "kv_heads",
                "width",
                "block_size",
                "table_stride",
                "query_stride",
                "window",
                "threads",
                "items",
            )
        ),
        ("item_sequence", ctypes.c_void_p),
        ("item_start", ctypes.c_void_p),
        ("scale", ctypes.c_float),
    )


def supports(queries: Tensor, key_cache: Tensor) -> bool:
    """Whether `paged_attention` can do this: its device, dtype and shapes, and a built library."""
    width = key_cache.shape[3]
    return (
        queries.device.type == "cpu"
        and queries.dtype in SUFFIXES
        and width % LANES == 0
        and width <= _MAX_WIDTH
        and queries.stride(2) == 1
        and queries.stride(1) == width
        and available()
    )


def paged_attention(
    queries: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    batch: AttentionBatch,
    scale: float,
    window: int | None,
) -> Tensor:
    """`engine.kernels.reference.paged_attention`, natively; ask `supports` first.

    The queries' rows may stand apart (any stride over tokens), so that they can be a view of a
    fused projection.
    """
    native = library()
    assert native is not None, "ask supports() first"
    tokens, heads, width = queries.shape
    kv_heads = key_cache.shape[2]
    out = torch.empty((tokens, heads, width), dtype=queries.dtype)
    owners, starts = batch.query_tiles(max(1, _MAX_ROWS // (heads // kv_heads)))
    tables = batch.block_tables
    shape = _Shape(
        heads=heads,
        kv_heads=kv_heads,
        width=width,
        block_size=batch.block_size,
        table_stride=tables.stride(0),
        query_stride=queries.stride(0),
        window=window or 0,
        threads=torch.get_num_threads(),
        items=owners.shape[0] * kv_heads,
        item_sequence=owners.data_ptr(),
        item_start=starts.data_ptr(),
        scale=scale,
    )
    pointers = (queries, key_cache, value_cache, out, batch.query_start, batch.context_lens, tables)
    getattr(native, f"paged_attention_{SUFFIXES[queries.dtype]}")(
        *(ctypes.c_void_p(tensor.data_ptr()) for tensor in pointers), ctypes.byref(shape)
    )
    return out
