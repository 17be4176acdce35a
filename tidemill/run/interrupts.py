"""What Ctrl-C, SIGTERM and SIGHUP do to a command that has something to finish."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

SHOW_CURSOR = b"\x1b[?25h\n"
# Shells, terminals and `timeout` send one signal twice: to the process and to its group.
ECHO_SECONDS = 0.5


@dataclass(slots=True)
class Heard:
    """The first signal that was heard, and when (monotonic seconds)."""

    number: int | None = None
    at: float = 0.0

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as a shell reports it; Ctrl-C's where none was heard."""
        return 128 + (self.number or signal.SIGINT)


@contextmanager
def interruptible() -> Iterator[Heard]:
    """The first Ctrl-C, SIGTERM or SIGHUP raises `KeyboardInterrupt` here.

    A second Ctrl-C or SIGTERM leaves at once. A terminal that is closed is no reason to hurry, so a
    second SIGHUP changes nothing. A signal that the process was started to ignore stays ignored.
    """
    heard = Heard()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if heard.number is None:
            heard.number, heard.at = number, time.monotonic()
            raise KeyboardInterrupt
        echo = number == heard.number and time.monotonic() - heard.at < ECHO_SECONDS
        if number == signal.SIGHUP or (echo and number != signal.SIGINT):
            return
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
        os._exit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    listened = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in listened}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
