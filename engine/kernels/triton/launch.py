"""The one place where Triton's kernels are launched, so that a check can see what would be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

LARGEST_GRID = (2**31 - 1, 65_535, 65_535)
"""Programs that a launch may have in each dimension (CUDA C++ programming guide)."""

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
    """Run a kernel; inside `collect`, note down that it would be run.

    Raises:
        ValueError: the grid is larger than a device launches.
    """
    if any(count > most for count, most in zip(grid, LARGEST_GRID, strict=False)):
        raise ValueError(
            f"{kernel.__name__} was to be launched with {grid} programs, more than {LARGEST_GRID}."
        )
    if _collected is not None:
        _collected.append(Launch(kernel, grid, arguments, constants))
    elif all(grid):
        kernel[grid](*arguments, **constants)


def collecting() -> bool:
    """Whether launches are noted down in place of being run: products of libraries are passed over
    then, too."""
    return _collected is not None


@contextmanager
def collect() -> Iterator[list[Launch]]:
    """Launches are kept here, and nothing runs: tensors may be on the meta device."""
    global _collected
    before, _collected = _collected, []
    try:
        yield _collected
    finally:
        _collected = before
