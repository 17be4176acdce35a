"""One call in the future, that may be put off or taken back."""

import asyncio
from collections.abc import Callable


class Timer:
    """At most one pending call on an event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    def start(self, seconds: float, call: Callable[[], None]) -> None:
        """Make this the pending call; an earlier one is taken back."""
        self.stop()
        self._handle = self._loop.call_later(seconds, call)

    def stop(self) -> None:
        """Take the pending call back, if there is one."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
