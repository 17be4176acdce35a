"""Weights from their files to a device, through pinned buffers that several threads read into.

A reader fills one buffer while others are copied to the device. So the files, not a thread, are
what loading waits for. Tensors are read in the order in which they lie in their files.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Protocol

import torch
from torch import Tensor

from engine.errors import CheckpointError, FilesUnreadable
from engine.kernels.fused.device import Mark

_READERS = 8
_BUFFER_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies.

    Attributes:
        path: its file.
        offset: of its first byte.
        dtype: of its numbers, which are contiguous and little-endian.
        shape: of the tensor.
    """

    path: Path
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(slots=True)
class ReadReport:
    """What reading took.

    Attributes:
        bytes: read from files.
        seconds: from the first read to the end of the last copy.
        read_seconds: of the readers, within reads, summed.
        readers: threads that read.
    """

    bytes: int = 0
    seconds: float = 0.0
    read_seconds: float = 0.0
    readers: int = 1

    def __str__(self) -> str:
        """One line: the rate that loading came to, beside what the files give."""
        rate = self.bytes / max(self.seconds, 1e-9) / 1e9
        of_files = self.bytes * self.readers / max(self.read_seconds, 1e-9) / 1e9
        return (
            f"{self.bytes / 1e9:.2f} GB of weights in {self.seconds:.1f} s: {rate:.1f} GB/s, where "
            f"the files give {of_files:.1f} GB/s to {self.readers} readers"
        )


class Copies(Protocol):
    """What copies to a device while the host goes on: some of `engine.kernels.fused.device`."""

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory that is copied from."""
        ...

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Submit a copy; the target may be of another dtype."""
        ...

    def mark(self) -> Mark:
        """A mark behind all that was submitted so far."""
        ...


class CudaCopies:
    """Copies on a stream of their own.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `Copies`."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Copies`; where dtypes differ, the device casts."""
        # The target may be memory that was freed, and that queued kernels still read.
        self._stream.wait_stream(torch.cuda.current_stream(target.device))
        with torch.cuda.stream(self._stream):
            if source.dtype != target.dtype:
                source = source.to(target.device, non_blocking=True)
            target.copy_(source, non_blocking=True)

    def mark(self) -> Mark:
        """See `Copies`."""
        event = torch.cuda.Event()
        event.record(self._stream)
        return _CudaMark(event)


@dataclass(frozen=True, slots=True)
class _CudaMark:
    event: torch.cuda.Event

    def wait(self) -> None:
        """See `Mark.wait`."""
        self.event.synchronize()


@dataclass(frozen=True, slots=True)
class _Piece:
    """Bytes of a file that fit into a buffer, and the elements that they are cast into."""

    file: int
    name: str
    offset: int
    dtype: torch.dtype
    target: Tensor

    @property
    def bytes(self) -> int:
        return self.target.numel() * self.dtype.itemsize


class StagedReader:
    """Reads tensors into tensors of a device.

    Args:
        copies: the device.
        readers: threads.
        buffer_bytes: of each of the pinned buffers, two a reader; a multiple of 8.

    Attributes:
        report: of all that was read so far.
    """

    def __init__(
        self, copies: Copies, *, readers: int = _READERS, buffer_bytes: int = _BUFFER_BYTES
    ) -> None:
        self.report = ReadReport(readers=readers)
        self._copies = copies
        self._readers = readers
        self._bytes = buffer_bytes
        self._free = [copies.pinned((buffer_bytes,), torch.uint8) for _ in range(2 * readers)]

    def fill(self, pairs: Iterable[tuple[Stored, Tensor]]) -> None:
        """Read every stored tensor into a contiguous tensor of its shape, and cast it.

        When this returns, all of it is there.

        Raises:
            FilesUnreadable: the system does not let a file be read.
            CheckpointError: a file ends too early.
        """
        began = perf_counter()
        ordered = sorted(pairs, key=lambda pair: (pair[0].path, pair[0].offset))
        reading: deque[tuple[_Piece, Tensor, Future[float]]] = deque()
        copying: deque[tuple[Mark, Tensor]] = deque()

        def submit_oldest() -> None:
            piece, buffer, read = reading.popleft()
            self.report.read_seconds += read.result()
            self.report.bytes += piece.bytes
            self._copies.copy(buffer[: piece.bytes].view(piece.dtype), piece.target)
            copying.append((self._copies.mark(), buffer))

        def free_oldest() -> None:
            mark, buffer = copying.popleft()
            mark.wait()
            self._free.append(buffer)

        with ThreadPoolExecutor(self._readers) as pool, ExitStack() as stack:
            for piece in self._pieces(ordered, stack):
                if len(reading) == self._readers:
                    submit_oldest()
                if not self._free:
                    free_oldest()
                buffer = self._free.pop()
                reading.append((piece, buffer, pool.submit(_read, piece, buffer)))
            while reading:
                submit_oldest()
            while copying:
                free_oldest()
        self.report.seconds += perf_counter() - began

    def _pieces(
        self, ordered: Iterable[tuple[Stored, Tensor]], stack: ExitStack
    ) -> Iterator[_Piece]:
        files: dict[Path, int] = {}
        for stored, target in ordered:
            file = files.get(stored.path)
            if file is None:
                file = files[stored.path] = _open(stored.path)
                stack.callback(os.close, file)
            flat, size = target.view(-1), stored.dtype.itemsize
            most = self._bytes // size
            for first in range(0, flat.numel(), most):
                offset = stored.offset + first * size
                piece = flat[first : first + most]
                yield _Piece(file, str(stored.path), offset, stored.dtype, piece)


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise FilesUnreadable.of(path, error) from error


def _read(piece: _Piece, buffer: Tensor) -> float:
    """Fill the buffer's beginning; returns the seconds it took."""
    began = perf_counter()
    view = buffer.numpy().data[: piece.bytes]
    done = 0
    while done < len(view):
        try:
            count = os.preadv(piece.file, [view[done:]], piece.offset + done)
        except OSError as error:
            raise FilesUnreadable.of(piece.name, error) from error
        if count == 0:
            raise CheckpointError(f"{piece.name} ends too early.")
        done += count
    return perf_counter() - began
