"""The file of one model's prepared weights: safetensors, with a record of what is in it.

It is written piece by piece, so that a writer can be stopped, and holds Python's lock for none of
them. The library's own writer holds it to the end. It is mapped when it is read: processes that run
one model share its memory.
"""

import hashlib
import json
import mmap
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate
from math import prod
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

_NAMES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.int8: "I8",
    torch.uint8: "U8",
}
_DTYPES = {name: dtype for dtype, name in _NAMES.items()}
_PIECE_BYTES = 1 << 20
_LINE = 64  # bytes of a cache line
_LONGEST_HEADER = 100_000_000  # as the library has it
_MOST_READERS = 8


class Stopped(Exception):
    """Writing was stopped before its end."""


class Damaged(Exception):
    """The file is not what was written under this fingerprint."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Tensors by name, and what else there is to know of them, as JSON has it."""

    tensors: Mapping[str, Tensor]
    form: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Entry:
    """A tensor as the record has it; ``crc`` is CRC-32 of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    crc: int

    @property
    def bytes(self) -> int:
        return prod(self.shape) * _DTYPES[self.dtype].itemsize


def write(file: BinaryIO, fingerprint: str, contents: Contents, stopped: Event) -> None:
    """Write a whole file.

    Args:
        file: at its beginning.
        fingerprint: what the contents follow from.
        contents: contiguous tensors, which nobody changes meanwhile.
        stopped: ends the writing within a piece.

    Raises:
        Stopped: ``stopped`` was set.
        OSError: the file cannot be written.
    """
    tensors = sorted(contents.tensors.items(), key=lambda item: _rank(item[1]))
    entries = [
        _Entry(name, _NAMES[tensor.dtype], tuple(tensor.shape), _checksum(tensor, stopped))
        for name, tensor in tensors
    ]
    file.write(_header(fingerprint, contents.form, entries))
    for _, tensor in tensors:
        for piece in _pieces(tensor, stopped):
            file.write(piece)


def _rank(tensor: Tensor) -> tuple[bool, int]:
    """Its order in a file, in which each begins with a cache line or with a number of its own."""
    return tensor.nbytes % _LINE > 0, -tensor.itemsize


def _header(fingerprint: str, form: Mapping[str, Any], entries: list[_Entry]) -> bytes:
    told = [(each.name, each.dtype, each.shape, each.crc) for each in entries]
    record = json.dumps({"fingerprint": fingerprint, "form": form, "tensors": told})
    header: dict[str, Any] = {"__metadata__": {"record": record, "sha256": _digest(record)}}
    end = 0
    for each in entries:
        start, end = end, end + each.bytes
        header[each.name] = {
            "dtype": each.dtype,
            "shape": each.shape,
            "data_offsets": (start, end),
        }
    text = json.dumps(header).encode()
    text += b" " * (-(len(text) + 8) % _LINE)
    return len(text).to_bytes(8, "little") + text


def read(path: Path, fingerprint: str, threads: int) -> Contents:
    """Read a whole file and check every byte of it.

    Args:
        path: the file.
        fingerprint: what the contents must follow from.
        threads: that read.

    Raises:
        Damaged: the file is not what was written under this fingerprint.
        OSError: there is no such file, or it cannot be read.
    """
    with path.open("rb") as file:
        form, entries, begin = _read_header(file, fingerprint)
        size = sum(each.bytes for each in entries)
        if os.fstat(file.fileno()).st_size != begin + size:
            raise Damaged("it is not as long as its header says")
        # Private and writable, as torch takes no other; nobody writes.
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    memory = torch.from_numpy(np.frombuffer(mapped, np.uint8))
    starts = accumulate((each.bytes for each in entries), initial=begin)
    tensors = {
        each.name: _tensor(memory, start, each)
        for start, each in zip(starts, entries, strict=False)
    }
    with ThreadPoolExecutor(min(threads, _MOST_READERS)) as pool:
        checksums = pool.map(_checksum, tensors.values())
        for each, checksum in zip(entries, checksums, strict=True):
            if checksum != each.crc:
                raise Damaged(f"{each.name} is damaged")
    return Contents(tensors, form)


def _read_header(file: BinaryIO, fingerprint: str) -> tuple[dict[str, Any], list[_Entry], int]:
    """What is said of the tensors, themselves, and where the first one begins."""
    length = file.read(8)
    size = int.from_bytes(length, "little")
    if size > _LONGEST_HEADER:
        raise Damaged("its header is too long")
    header = file.read(size)
    try:
        metadata = json.loads(header)["__metadata__"]
        text, digest = metadata["record"], metadata["sha256"]
        if _digest(text) != digest:
            raise Damaged("its record is damaged")
        record = json.loads(text)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Damaged("its header is damaged") from error
    if record["fingerprint"] != fingerprint:
        raise Damaged("it is another model's")
    form: dict[str, Any] = record["form"]
    entries = [_Entry(name, dtype, (*shape,), crc) for name, dtype, shape, crc in record["tensors"]]
    if length + header != _header(fingerprint, form, entries):
        raise Damaged("its header is damaged")
    return form, entries, len(length) + size


def _tensor(memory: Tensor, start: int, entry: _Entry) -> Tensor:
    stored = memory[start : start + entry.bytes]
    return stored.view(_DTYPES[entry.dtype]).view(entry.shape)


def _checksum(tensor: Tensor, stopped: Event | None = None) -> int:
    crc = 0
    for piece in _pieces(tensor, stopped):
        crc = zlib.crc32(piece, crc)
    return crc


def _pieces(tensor: Tensor, stopped: Event | None) -> Iterator[memoryview]:
    view = tensor.view(-1).view(torch.uint8).numpy().data
    for start in range(0, len(view), _PIECE_BYTES):
        if stopped is not None and stopped.is_set():
            raise Stopped
        yield view[start : start + _PIECE_BYTES]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
