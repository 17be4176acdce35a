"""How long a job may be planned or finalized before it makes room for others.

A job that is given back begins anew later, under a new epoch, so nothing of it can be lost. What
it costs is bounded: each time it may take twice as long.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from worker.errors import TakesLong

ASK_SECONDS = 5.0


@dataclass
class Allowance:
    """What one job may use up, of heartbeats and of seconds. For one thread.

    Args:
        beats: heartbeats, of which there are one or two a line; ``None`` is any number.
        seconds: ``None`` is any number.
        needed: once both allow no more, whether others wait; asked every few seconds.
    """

    beats: int | None = None
    seconds: float | None = None
    needed: Callable[[], bool] = lambda: True
    _used: int = field(default=0, init=False)
    _ask_at: float | None = field(default=None, init=False)

    def around(self, heartbeat: Callable[[], None]) -> Callable[[], None]:
        """The heartbeat that also raises `TakesLong` once the allowance is used up."""
        if self.seconds is not None:
            self._ask_at = time.monotonic() + self.seconds

        def beat() -> None:
            heartbeat()
            self._used += 1
            if self._over() and self.needed():
                raise TakesLong

        return beat

    def _over(self) -> bool:
        if self.beats is not None and self._used > self.beats:
            return True
        now = time.monotonic()
        if self._ask_at is None or now < self._ask_at:
            return False
        self._ask_at = now + ASK_SECONDS
        return True
