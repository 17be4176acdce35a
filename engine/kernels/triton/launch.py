"""The one place where Triton's kernels are launched, so that a check can see what would be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Whether Triton runs kernels on the CPU, in its interpreter. Read when Triton is imported."""


@dataclass(frozen=True, slots=True)
class Launch:
    """One launch of a kernel.

    Attributes:
        kernel: a function under ``triton.jit``.
        grid: programs in up to three dimensions.
        arguments: tensors and numbers, in the kernel's order.
        constants: constexpr arguments and the options of the compiler (num_warps, num_stages).
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: tuple[Any, ...]
    constants: dict[str, Any] = field(default_factory=dict)


_collected: list[Launch] | None = None


def launch(kernel: Any, grid: tuple[int, ...], *arguments: Any, **constants: Any) -> None:
    """Run a kernel; inside `collect`, note down that it would be run."""
    if _collected is not None:
        _collected.append(Launch(kernel, grid, arguments, constants))
    elif all(grid):
        kernel[grid](*arguments, **constants)


@contextmanager
def collect() -> Iterator[list[Launch]]:
    """Launches are kept here, and nothing runs: tensors may be on the meta device."""
    global _collected
    before, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = before
