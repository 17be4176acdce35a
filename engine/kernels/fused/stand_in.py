"""A device that is none: what is submitted waits in a queue until somebody waits for it.

It runs everything as late as it may. So a host that changes memory before the device has read it,
or reads memory before it is written, gets wrong tokens here in every run, where a real device would
give them now and then.
"""

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.fused.device import Launches


class StandIn:
    """A queue of work on the CPU; see `engine.kernels.fused.device.Device`.

    Args:
        memory: bytes that `free_memory` gives.

    Attributes:
        recorded: graphs that were made.
        replayed: how often any of them was submitted.
    """

    torch_device = torch.device("cpu")
    multiprocessors = 8

    def __init__(self, memory: int = 256 * 1024**2) -> None:
        self.recorded = self.replayed = 0
        self._memory = memory
        self._queue: deque[Launches] = deque()
        self._submitted = self._done = 0

    def use(self) -> AbstractContextManager[object]:
        """See `Device.use`. What torch does on a CPU is done at once."""
        return nullcontext()

    def submit(self, work: Launches) -> None:
        """See `Device.submit`."""
        self._queue.append(work)
        self._submitted += 1

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `Device.pinned`."""
        return torch.zeros(shape, dtype=dtype)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Device.copy`."""

        def work() -> None:
            target.copy_(source)

        self.submit(work)

    def mark(self) -> "StandInMark":
        """See `Device.mark`."""
        return StandInMark(self, self._submitted)

    def record(self, work: Launches) -> "StandInGraph":
        """See `Device.record`."""
        self.recorded += 1
        return StandInGraph(self, work)

    def fetch(self, tensor: Tensor) -> Tensor:
        """See `Device.fetch`."""
        self.mark().wait()
        return tensor.clone()

    def free_memory(self) -> int:
        """See `Device.free_memory`."""
        return self._memory

    @property
    def waiting(self) -> int:
        """Pieces of work that were submitted and have not run."""
        return len(self._queue)

    def run(self, submitted: int) -> None:
        """Run the oldest pieces of work, until so many were run since the beginning."""
        while self._done < submitted:
            self._done += 1
            self._queue.popleft()()


@dataclass(frozen=True, slots=True)
class StandInMark:
    """See `engine.kernels.fused.device.Mark`."""

    device: StandIn
    submitted: int

    def wait(self) -> None:
        """See `Mark.wait`."""
        self.device.run(self.submitted)


@dataclass(frozen=True, slots=True)
class StandInGraph:
    """See `engine.kernels.fused.device.Graph`."""

    device: StandIn
    work: Launches

    def replay(self) -> None:
        """See `Graph.replay`."""
        self.device.replayed += 1
        self.device.submit(self.work)
