"""An event for wake-ups: threads that wait for work look for it at once."""

import threading


class WakeupEvent:
    """Wakes every thread that waits. After one that came before it, `wait` returns at once."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def notify(self) -> None:
        """Wake every thread."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout: float) -> int:
        """Wait until there were more than ``seen`` wake-ups, for at most ``timeout`` seconds.

        Returns how many there were so far. Pass 0 at first, and then what the last call returned.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._count != seen, timeout)
            return self._count
