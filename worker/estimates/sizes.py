"""How large a model is, by its files' headers."""

from functools import lru_cache
from math import prod

from engine.catalog import FilesState, files_state, resolve
from engine.errors import EngineError
from storage.estimates.roofline import Size

# A model of a billion parameters, where files cannot be read: its proportions are those of most.
UNKNOWN = Size(1e9, 1e9)
# Weights are kept in 8 bits on a CPU, and mostly in 16 on a GPU.
_CPU_BYTES, _GPU_BYTES = 1.0, 2.0


def size_of(source: str, *, on_gpu: bool) -> Size:
    """The size of the model at ``source``, or `UNKNOWN` where its files cannot be read."""
    parameters = _parameters(source, files_state(source))
    if not parameters:
        return UNKNOWN
    return Size(parameters, parameters * (_GPU_BYTES if on_gpu else _CPU_BYTES))


@lru_cache(maxsize=32)
def _parameters(source: str, state: FilesState) -> float:
    """Its parameters; ``state`` is that of the files, so that changed ones are read again."""
    # Imported here: the API's process imports planners, and need not have safetensors.
    from engine.models.headers import gguf_headers, safetensors_headers

    try:
        files = resolve(source)
        headers = gguf_headers(files.gguf) if files.gguf else safetensors_headers(files.folder)
    except EngineError:
        return 0.0
    return float(sum(prod(header.shape) for header in headers.values()))
