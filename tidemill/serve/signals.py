"""What Ctrl-C, SIGTERM and SIGHUP do to a command: one that has something to finish is
interrupted, and one that serves until it is stopped stops."""

import _thread
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

LOOK_SECONDS = 0.5
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

    def first(self, number: int) -> bool:
        """Take note of a signal; whether it is the first."""
        if self.number is not None:
            return False
        self.number, self.at = number, time.monotonic()
        return True

    def hurries(self, number: int) -> bool:
        """Whether a later signal asks to leave at once.

        A terminal that is closed is no reason to hurry, and neither is the first signal's echo.
        """
        echo = number == self.number and time.monotonic() - self.at < ECHO_SECONDS
        return number == signal.SIGINT or (number == signal.SIGTERM and not echo)


def heeded() -> list[int]:
    """The signals that end a command; SIGHUP not where it was started to outlive its terminal."""
    numbers: list[int] = [signal.SIGINT, signal.SIGTERM]
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return numbers if ignored else [*numbers, signal.SIGHUP]


@contextmanager
def interruptible() -> Iterator[Heard]:
    """The first Ctrl-C, SIGTERM or SIGHUP raises `KeyboardInterrupt` here.

    A second Ctrl-C or SIGTERM leaves at once. A signal that the process was started to ignore stays
    ignored.
    """
    heard = Heard()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if heard.first(number):
            raise KeyboardInterrupt
        if not heard.hurries(number):
            return
        if os.isatty(2):
            os.write(2, SHOW_CURSOR)
        os._exit(128 + number)

    numbers = [number for number in heeded() if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        yield heard
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_on_signals() -> threading.Event:
    """An event that the first of these signals sets; a second Ctrl-C or SIGTERM ends at once."""
    stop = threading.Event()
    heard = Heard()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if heard.first(number):
            # In a thread of its own: the main thread may be inside the event and hold its lock.
            _thread.start_new_thread(stop.set, ())
        elif heard.hurries(number):
            os._exit(128 + number)

    for number in heeded():
        signal.signal(number, on_signal)
    return stop


def wait_until_set(event: threading.Event) -> None:
    """Wait for an event that a signal's handler sets.

    The wait ends every half second for a moment. A process that was paused may take a signal in
    any of its threads, but handlers run in the main thread alone, and only while it is not waiting.
    """
    while not event.wait(LOOK_SECONDS):
        pass
