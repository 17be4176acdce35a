"""What comes of compiling one launch of a kernel for one card, and the bounds it has to keep."""

from dataclasses import dataclass

SHARED_BYTES = {80: 166_912, 89: 101_376, 90: 232_448}
"""Shared memory that a block of threads may take, by compute capability (CUDA C++ Programming
Guide, technical specifications)."""
MOST_STACK_BYTES = 128
"""Of local memory a thread, for spilled registers: an eighth of what its 255 registers hold."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """What came of compiling one launch.

    Attributes:
        package: who ships it.
        kernel, arguments, constants: what was launched.
        capability: compute capability, 90 for 9.0.
        seconds: what compiling took, when it was done.
        registers: of a thread.
        stack_bytes: local memory of a thread.
        shared_bytes: shared memory of a block of threads.
        error: why there is no code; empty where there is.
    """

    package: str
    kernel: str
    capability: int
    arguments: str
    constants: str
    seconds: float = 0.0
    registers: int = 0
    stack_bytes: int = 0
    shared_bytes: int = 0
    error: str = ""

    @property
    def fault(self) -> str:
        """Why it may not be shipped; empty where it may."""
        if self.error:
            return self.error
        if self.stack_bytes > MOST_STACK_BYTES:
            return f"spills: {self.stack_bytes} bytes of stack, more than {MOST_STACK_BYTES}"
        most = SHARED_BYTES.get(self.capability, max(SHARED_BYTES.values()))
        if self.shared_bytes > most:
            return f"{self.shared_bytes:,} bytes of shared memory, more than {most:,}"
        return ""

    def __str__(self) -> str:
        return (
            f"sm_{self.capability} {self.package}.{self.kernel}({self.arguments}; "
            f"{self.constants}): {self.registers} registers, {self.stack_bytes} stack, "
            f"{self.shared_bytes:,} shared, {self.seconds:.1f} s"
            f"{self.fault and ': BAD, ' + self.fault}"
        )
