"""What a doorbell rings: threads that wait for work look again at once."""

import threading


class Bell:
    """Wakes every thread that waits for it. A ring that comes while one is at work is kept."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._rings = 0

    def ring(self) -> None:
        """Wake all who wait."""
        with self._condition:
            self._rings += 1
            self._condition.notify_all()

    def wait(self, heard: int, timeout: float) -> int:
        """Wait for a ring after the first ``heard``, at most ``timeout`` seconds; how many by now.

        Pass 0 at first, and then what the last call returned.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._rings != heard, timeout)
            return self._rings
