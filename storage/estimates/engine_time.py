"""An engine's time and steps, and what of them belongs to a chunk."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class EngineTime:
    """What one chunk took of an engine.

    Attributes:
        device: what the engine is rated as (`engine.info.EngineInfo.rated_as`); ``None`` where no
            rate is to be learned from this.
        seconds: of its time at work, not counting its start.
        steps: likewise.
    """

    device: str | None
    seconds: float
    steps: float

    def values(self) -> dict[str, Any]:
        """As columns of the chunk."""
        return {"device": self.device, "seconds": self.seconds, "steps": self.steps}


def shares(pending: Sequence[int], room: int) -> list[float]:
    """How an engine's time is shared among chunks: by the requests of each that run.

    Args:
        pending: requests that have not ended, of each chunk, in the order in which they were
            submitted.
        room: how many requests run at once; the first ones do.

    Returns:
        A share for each chunk. They add up to 1, or to 0 where nothing is pending.
    """
    running = []
    for count in pending:
        running.append(min(count, room))
        room -= running[-1]
    whole = sum(running)
    return [count / whole if whole else 0.0 for count in running]
