"""A memory-mapped GGUF file.

The format: ggml's docs/gguf.md, versions 2 and 3, little-endian. The header (metadata and tensor
table) is read when the file is first opened; tensor bytes are only ever views of the mapping.
"""

import mmap
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from struct import Struct, error
from types import MappingProxyType
from typing import Any, Self
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from engine.errors import CheckpointError, FilesUnreadable
from engine.gguf.types import GGMLType, stored_bytes

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32
MOST_CHARACTERS = 300  # of what a message says of a file

_UINT32 = Struct("<I")
_UINT64 = Struct("<Q")
_ARRAY_HEAD = Struct("<IQ")
_STRING, _ARRAY = 8, 9
# GGUF's metadata value types → NumPy's.
_SCALARS: Mapping[int, np.dtype[Any]] = MappingProxyType(
    {
        0: np.dtype("u1"),
        1: np.dtype("i1"),
        2: np.dtype("<u2"),
        3: np.dtype("<i2"),
        4: np.dtype("<u4"),
        5: np.dtype("<i4"),
        6: np.dtype("<f4"),
        7: np.dtype("?"),
        10: np.dtype("<u8"),
        11: np.dtype("<i8"),
        12: np.dtype("<f8"),
    }
)


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """One tensor of the file's table.

    Attributes:
        shape: row-major, outermost dimension first, as NumPy and torch have it (GGUF stores the
            reverse).
        offset: of its first byte, from the start of the file.
        nbytes: bytes it takes in the file.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int
    nbytes: int


class GGUFFile:
    """An open GGUF file.

    Attributes:
        path: where it is.
        version: of the format, 2 or 3.
        metadata: key → value. Numbers and booleans are Python's, strings ``str``, arrays of
            strings ``list[str]``, arrays of numbers read-only NumPy arrays.
        tensors: name → `GGUFTensor`, in the file's order.

    Raises:
        CheckpointError: there is no such file, or it is not GGUF, is truncated, or contradicts
            itself.
        FilesUnreadable: the system does not let it be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        mapping, version = _map(self.path)
        try:
            # A vocabulary takes long to read, and loading a model opens its file several times.
            self._header = _headers.get(version) or _headers.setdefault(version, _read(mapping))
        except CheckpointError as problem:
            # What is damaged may hold names without end.
            raise CheckpointError(f"{self.path} {str(problem)[:MOST_CHARACTERS]}.") from problem
        except (error, OverflowError, TypeError, ValueError) as problem:
            # A read beyond the end, or a value of a type that its key cannot have.
            raise CheckpointError(f"{self.path} is truncated or damaged.") from problem
        self.version, self.metadata = self._header.version, self._header.metadata
        self.tensors = self._header.tensors
        self._bytes: npt.NDArray[np.uint8] | None = np.frombuffer(mapping, np.uint8)

    def raw(self, name: str) -> npt.NDArray[np.uint8]:
        """A tensor's stored bytes: uint8 ``[nbytes]``, a read-only view of the mapped file.

        The view stays valid after `close`.

        Raises:
            CheckpointError: there is no such tensor, or the file is closed.
        """
        if self._bytes is None:
            raise CheckpointError(f"{self.path} is closed.")
        tensor = self.tensors.get(name)
        if tensor is None:
            raise CheckpointError(f"{self.path} has no tensor {name!r}.")
        return self._bytes[tensor.offset : tensor.offset + tensor.nbytes]

    def close(self) -> None:
        """Let go of the mapping; it is unmapped once the last view of it is gone."""
        self._bytes = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True, weakref_slot=True)
class _Contents:
    """What a header says; see `GGUFFile`."""

    version: int
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]


_FileVersion = tuple[int, ...]
# Of the files that somebody has a `GGUFFile` of, by what changes with a file.
_headers: WeakValueDictionary[_FileVersion, _Contents] = WeakValueDictionary()


def _read(mapping: mmap.mmap) -> _Contents:
    cursor = _Header(mapping)
    version, tensor_count, metadata_count = cursor.preamble()
    metadata = cursor.metadata(metadata_count)
    files = metadata.get("split.count", 0)
    if files > 1:
        raise CheckpointError(
            f"is one part of {files}; merge them with llama.cpp's gguf-split first"
        )
    alignment = int(metadata.get("general.alignment") or DEFAULT_ALIGNMENT)
    return _Contents(version, metadata, cursor.tensors(tensor_count, alignment))


def _map(path: Path) -> tuple[mmap.mmap, _FileVersion]:
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            changes = found.st_size, found.st_mtime_ns, found.st_ctime_ns
            version = found.st_dev, found.st_ino, *changes
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), version
    except (FileNotFoundError, IsADirectoryError, ValueError) as problem:
        # ValueError: an empty file cannot be mapped.
        raise CheckpointError(f"{path} cannot be read as a GGUF file.") from problem
    except OSError as problem:
        raise FilesUnreadable.of(path, problem) from problem


class _Header:
    """A cursor over the header."""

    def __init__(self, buffer: mmap.mmap) -> None:
        self._buffer = buffer
        self._position = 0

    def preamble(self) -> tuple[int, int, int]:
        """Version, number of tensors, number of metadata pairs."""
        if self._take(len(MAGIC)) != MAGIC:
            raise CheckpointError("is not a GGUF file")
        version = self._uint32()
        if version not in VERSIONS:
            # A small number stored big-endian has only its highest byte set.
            kind = "big-endian" if version & 0xFFFFFF == 0 else f"version {version} of"
            raise CheckpointError(f"is {kind} GGUF; versions 2 and 3, little-endian, are read")
        return version, self._uint64(), self._uint64()

    def metadata(self, count: int) -> Mapping[str, Any]:
        pairs: dict[str, Any] = {}
        for _ in range(count):
            key = self._string()
            pairs[key] = self._value(self._uint32(), key)
        return MappingProxyType(pairs)

    def tensors(self, count: int, alignment: int) -> Mapping[str, GGUFTensor]:
        entries = [self._tensor() for _ in range(count)]
        start = -(-self._position // alignment) * alignment
        table: dict[str, GGUFTensor] = {}
        for name, shape, type, offset in entries:
            nbytes = stored_bytes(type, shape)
            if nbytes is None:
                raise CheckpointError(f"has a tensor {name!r} whose rows do not fit {type.name}")
            if start + offset + nbytes > len(self._buffer):
                raise CheckpointError(f"is truncated: tensor {name!r} ends beyond its end")
            if name in table:
                raise CheckpointError(f"holds two tensors named {name!r}")
            table[name] = GGUFTensor(name, shape, type, start + offset, nbytes)
        return MappingProxyType(table)

    def _tensor(self) -> tuple[str, tuple[int, ...], GGMLType, int]:
        name = self._string()
        dimensions = self._uint32()
        if dimensions > MAX_DIMENSIONS:
            raise CheckpointError(f"has a tensor {name!r} of {dimensions} dimensions")
        shape = tuple(self._uint64() for _ in range(dimensions))[::-1]
        if prod(shape) > 2**63:
            raise CheckpointError(f"has a tensor {name!r} of an impossible shape {shape}")
        number = self._uint32()
        try:
            type = GGMLType(number)
        except ValueError:
            raise CheckpointError(f"has a tensor {name!r} of unknown type {number}") from None
        return name, shape, type, self._uint64()

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(key)
        dtype = self._scalar_type(kind, key)
        return np.frombuffer(self._take(dtype.itemsize), dtype)[0].item()

    def _array(self, key: str) -> list[str] | npt.NDArray[Any]:
        kind, count = _ARRAY_HEAD.unpack(self._take(_ARRAY_HEAD.size))
        if kind == _STRING:
            return self._strings(count)
        dtype = self._scalar_type(kind, key)
        return np.frombuffer(self._take(count * dtype.itemsize), dtype)

    def _scalar_type(self, kind: int, key: str) -> np.dtype[Any]:
        if kind not in _SCALARS:
            raise CheckpointError(f"has metadata {key!r} of unknown type {kind}")
        return _SCALARS[kind]

    def _strings(self, count: int) -> list[str]:
        # A vocabulary and its merges are 100,000 strings and more: one loop over locals.
        buffer, position = self._buffer, self._position
        length_at: Callable[..., tuple[int]] = _UINT64.unpack_from
        strings: list[str] = []
        append = strings.append
        for _ in range(count):
            start = position + 8
            position = start + length_at(buffer, position)[0]
            append(buffer[start:position].decode("utf-8", "replace"))
        if position > len(buffer):
            raise CheckpointError("is truncated")
        self._position = position
        return strings

    def _string(self) -> str:
        return self._take(self._uint64()).decode("utf-8", "replace")

    def _uint32(self) -> int:
        return int(_UINT32.unpack(self._take(4))[0])

    def _uint64(self) -> int:
        return int(_UINT64.unpack(self._take(8))[0])

    def _take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._buffer):
            raise CheckpointError("is truncated")
        taken = self._buffer[self._position : end]
        self._position = end
        return taken
