"""The built library, loaded once; ``None`` where it cannot be had."""

import ctypes
import logging
from ctypes import POINTER, c_float, c_int, c_int64, c_void_p
from functools import cache

from engine.kernels.native import structs
from engine.kernels.native.build import BuildFailed, build

log = logging.getLogger(__name__)

LANES = 16

_SEGMENTS = c_void_p
_STEP, _CACHE, _ROWS, _WEIGHT, _SHAPE, _LAYER, _BUFFERS = map(
    POINTER,
    (
        structs.Step,
        structs.Cache,
        structs.Rows,
        structs.Weight,
        structs.Shape,
        structs.Layer,
        structs.Buffers,
    ),
)
# Result and arguments of every function that is called from Python.
_FUNCTIONS: dict[str, tuple[type | None, tuple[type, ...]]] = {
    "struct_sizes": (None, (c_void_p,)),
    "segments_new": (c_void_p, (c_int64,)),
    "segments_free": (None, (_SEGMENTS,)),
    "segments_build": (c_int, (_SEGMENTS, _STEP, _CACHE, c_void_p, *(c_int64,) * 3)),
    "decoder_embed": (None, (_SHAPE, c_void_p, c_int64, _STEP, _BUFFERS)),
    "decoder_layer": (
        None,
        (_SHAPE, _LAYER, _STEP, _SEGMENTS, _BUFFERS, c_void_p, c_int64, c_int64),
    ),
    "decoder_head": (
        None,
        (_SHAPE, c_void_p, _WEIGHT, _BUFFERS, c_int64, c_int64, *(c_void_p,) * 3, c_int64),
    ),
    "rotate_rows": (None, (c_void_p, *(c_int64,) * 3, c_void_p, c_void_p, c_int64)),
    "hadamard_rows": (None, (c_void_p, *(c_int64,) * 3, c_float, c_int64)),
    "quantize_channels": (None, (c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_int64)),
    "pack_int8": (None, (c_void_p, *(c_int64,) * 3, c_void_p, c_void_p, c_int64)),
    "sample_room": (c_int64, (c_int64,)),
    "sample": (None, (c_void_p, c_int64, c_int64, *(c_void_p,) * 3, c_int64)),
    "linear": (None, (c_void_p, _ROWS, _WEIGHT, c_int64, c_int64, c_void_p, c_int64)),
    "attention": (None, (_STEP, _CACHE, _SEGMENTS, *(c_void_p,) * 5, c_int64)),
}


def available() -> bool:
    """Whether the kernels are built; builds them now (seconds, once a machine) if need be."""
    return library() is not None


@cache
def library() -> ctypes.CDLL | None:
    """The library with its functions declared.

    Raises:
        TypeError: its structs are not those of `structs`; a bug of ours.
    """
    try:
        loaded = ctypes.CDLL(str(build()))
    except (BuildFailed, OSError) as error:
        log.warning("Native CPU kernels are off and the engine runs slower: %s.", error)
        return None
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = result, arguments
    sizes = (c_int64 * len(structs.ALL))()
    loaded.struct_sizes(ctypes.byref(sizes))
    wrong = [
        kind.__name__
        for kind, size in zip(structs.ALL, sizes, strict=True)
        if ctypes.sizeof(kind) != size
    ]
    if wrong:
        raise TypeError(f"Structs that C and Python declare differently: {', '.join(wrong)}.")
    return loaded
