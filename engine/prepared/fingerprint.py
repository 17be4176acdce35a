"""What prepared weights follow from, as one digest: equal only where the weights would be equal."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from engine.catalog import ModelFiles

# Of file systems' clocks the coarsest counts two seconds: a file that changed since may change once
# more, and look the same.
SETTLED_NS = 5_000_000_000

_ENGINE = Path(__file__).parents[1]
_DECIDING = ("executors", "gguf", "kernels", "models", "prepared", "quantize")
_FOR_GPUS = "triton"
_WEIGHTS_AND_CONFIGURATION = (".safetensors", ".json")


def fingerprint(files: ModelFiles, facts: Iterable[object]) -> str | None:
    """The digest of a model's files, this code, and what else decides.

    A file counts by where it really lies, its identity, its size and its times. One of these is the
    time of its last change, which nobody can set.

    Args:
        files: the model's.
        facts: whatever else decides; their ``repr`` says all of it.

    Returns:
        Hexadecimal digits; ``None`` where a file changed a moment ago or cannot be looked at, and
        where this code cannot be read.
    """
    try:
        paths = [files.gguf] if files.gguf else _files_of(files.folder)
        found = [(path.name, os.path.realpath(path), path.stat()) for path in paths]
    except OSError:
        return None
    if SOURCES is None or not found:
        return None
    if time.time_ns() - max(state.st_ctime_ns for _, _, state in found) < SETTLED_NS:
        return None
    states = [
        (
            name,
            real,
            state.st_dev,
            state.st_ino,
            state.st_size,
            state.st_mtime_ns,
            state.st_ctime_ns,
        )
        for name, real, state in found
    ]
    return hashlib.sha256(repr((SOURCES, states, *facts)).encode()).hexdigest()


def _files_of(folder: Path) -> list[Path]:
    return sorted(x for x in folder.iterdir() if x.suffix in _WEIGHTS_AND_CONFIGURATION)


def _digest_of_sources() -> str | None:
    digest = hashlib.sha256()
    try:
        for name in _DECIDING:
            for folder, folders, names in os.walk(_ENGINE / name):
                folders[:] = sorted(x for x in folders if x not in (_FOR_GPUS, "__pycache__"))
                for each in sorted(x for x in names if x.endswith((".py", ".c", ".h"))):
                    path = Path(folder, each)
                    text = hashlib.sha256(path.read_bytes()).hexdigest()
                    digest.update(f"{path.relative_to(_ENGINE)} {text}\n".encode())
    except OSError:
        return None
    return digest.hexdigest()


# Read when this code is imported: where it is upgraded later, this process runs what it was.
SOURCES = _digest_of_sources()
