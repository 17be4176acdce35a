"""The native kernels' entry points, called through ctypes; `None` where they cannot be had."""

import ctypes
import logging
from functools import cache

import torch
from torch import Tensor

from engine.kernels.batch import AttentionBatch
from engine.kernels.native.build import BuildFailed, build

log = logging.getLogger(__name__)

_LANES = 16
_MAX_WIDTH = 256
_MAX_ROWS = 12
_NAMES = {torch.float32: "paged_attention_f32", torch.bfloat16: "paged_attention_bf16"}


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


def available() -> bool:
    """Whether the kernels are built; builds them now (seconds, once a machine) if need be."""
    return _library() is not None


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(build()))
    except (BuildFailed, OSError) as error:
        log.warning("Native CPU kernels are off and attention runs slower: %s.", error)
        return None
    for name in _NAMES.values():
        getattr(library, name).argtypes = [ctypes.c_void_p] * 7 + [ctypes.POINTER(_Shape)]
        getattr(library, name).restype = None
    return library


def supports(queries: Tensor, key_cache: Tensor) -> bool:
    """Whether `paged_attention` can do this: its device, dtype and shapes, and a built library."""
    width = key_cache.shape[3]
    return (
        queries.device.type == "cpu"
        and queries.dtype in _NAMES
        and width % _LANES == 0
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
    library = _library()
    assert library is not None, "ask supports() first"
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
    getattr(library, _NAMES[queries.dtype])(
        queries.data_ptr(),
        key_cache.data_ptr(),
        value_cache.data_ptr(),
        out.data_ptr(),
        batch.query_start.data_ptr(),
        batch.context_lens.data_ptr(),
        tables.data_ptr(),
        ctypes.byref(shape),
    )
    return out
