"""An event that a wake-up sets: threads that wait for work look again at once."""

import threading


class WakeupEvent:
    """Wakes every thread that waits for it. One that comes while a thread is at work is kept."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._count = 0

    def notify(self) -> None:
        """Wake all who wait."""
        with self._condition:
            self._count += 1
            self._condition.notify_all()

    def wait(self, seen: int, timeout: float) -> int:
        """Wait for one more than ``seen``, for at most ``timeout`` seconds; how many by now.

        Pass 0 at first, and then what the last call returned.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._count != seen, timeout)
            return self._count
