"""A device that works while the host goes on, as the runtime sees it."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol

import torch
from torch import Tensor

Launches = Callable[[], object]
"""Makes launches, which read and write tensors of the device at addresses that stay. What it
returns is dropped."""


class Mark(Protocol):
    """A point in a device's queue."""

    def wait(self) -> None:
        """Return when all that was submitted before the mark is done."""
        ...


class Graph(Protocol):
    """Launches that were recorded once, and run again at the price of one."""

    def replay(self) -> None:
        """Submit them all. They read what their tensors hold when they run."""
        ...


class Device(Protocol):
    """Runs what is submitted to it in order, while the host goes on.

    What is submitted may read host memory only if it is pinned, and the host must not change that
    before the work is done.

    Attributes:
        torch_device: where its tensors are.
        multiprocessors: what runs programs at the same time.
    """

    torch_device: torch.device
    multiprocessors: int

    def use(self) -> AbstractContextManager[object]:
        """Within it, what torch allocates and fills on the device is in the order of its work."""
        ...

    def submit(self, work: Launches) -> None:
        """Add work to the queue."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Zeroed host memory that the device copies from and to on its own."""
        ...

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Submit a copy between pinned memory and the device, or within the device."""
        ...

    def mark(self) -> Mark:
        """A mark behind all that was submitted so far."""
        ...

    def record(self, work: Launches) -> Graph:
        """Make a graph of the work, which allocates nothing and has run before."""
        ...

    def fetch(self, tensor: Tensor) -> Tensor:
        """Wait for all work, and give a tensor of the device as one of the host."""
        ...

    def free_memory(self) -> int:
        """Bytes that may still be allocated."""
        ...
