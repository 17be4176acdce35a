"""The file of one model's prepared weights: safetensors, with a record of what is in it.

It is written piece by piece, so that a writer can be stopped, and holds Python's lock for none of
them. The library's own writer holds it to the end. It is read into memory of this process's own,
not mapped: weights that the system may drop under pressure would be read again in every step, and a
file that is removed would keep its room on the disk.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
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
_PIECE_BYTES = 1 << 20  # small enough for the processor's cache
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
    # Those that fill their cache lines come first, so that all of them begin with one.
    tensors = sorted(contents.tensors.items(), key=lambda item: item[1].nbytes % _LINE > 0)
    entries = [
        _Entry(name, _NAMES[tensor.dtype], tuple(tensor.shape), _checksum(tensor, stopped))
        for name, tensor in tensors
    ]
    file.write(_header(fingerprint, contents.form, entries))
    for _, tensor in tensors:
        for piece in _pieces(tensor, stopped):
            file.write(piece)


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
    text += b" " * (-len(text) % 8)
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
        memory = _aligned(size)
        places, end = [], 0
        for each in entries:
            start, end = end, end + each.bytes
            places.append((each, start))
        with ThreadPoolExecutor(min(threads, _MOST_READERS)) as pool:
            tensors = pool.map(
                lambda place: _read_tensor(file.fileno(), begin, memory, *place),
                sorted(places, key=lambda place: -place[0].bytes),
            )
            return Contents(dict(tensors), form)


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


def _read_tensor(
    file: int, begin: int, memory: Tensor, entry: _Entry, start: int
) -> tuple[str, Tensor]:
    stored = memory[start : start + entry.bytes]
    view, done, crc = memoryview(stored.numpy()), 0, 0
    while done < entry.bytes:
        piece = view[done : done + _PIECE_BYTES]
        count = os.preadv(file, [piece], begin + start + done)
        if count == 0:
            raise Damaged("it ends too early")
        crc = zlib.crc32(piece[:count], crc)  # while it is in the processor's cache
        done += count
    if crc != entry.crc:
        raise Damaged(f"{entry.name} is damaged")
    return entry.name, stored.view(_DTYPES[entry.dtype]).view(entry.shape)


def _aligned(size: int) -> Tensor:
    """uint8 memory that begins with a cache line. numpy asks for large pages, torch does not."""
    memory = torch.from_numpy(np.empty(size + _LINE, dtype=np.uint8))
    start = -memory.data_ptr() % _LINE
    return memory[start : start + size]


def _checksum(tensor: Tensor, stopped: Event) -> int:
    crc = 0
    for piece in _pieces(tensor, stopped):
        crc = zlib.crc32(piece, crc)
    return crc


def _pieces(tensor: Tensor, stopped: Event) -> Iterator[memoryview]:
    view = memoryview(tensor.view(-1).view(torch.uint8).numpy())
    for start in range(0, len(view), _PIECE_BYTES):
        if stopped.is_set():
            raise Stopped
        yield view[start : start + _PIECE_BYTES]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
