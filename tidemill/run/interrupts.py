"""What Ctrl-C and SIGTERM do to a command that has something to finish."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tidemill.exits import ExitCode

SHOW_CURSOR = b"\x1b[?25h\n"


@contextmanager
def interruptible() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM raises `KeyboardInterrupt` here, a second one leaves at once.

    A signal that the process was started to ignore stays ignored.
    """
    interrupted = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        if interrupted.is_set():
            if os.isatty(2):
                os.write(2, SHOW_CURSOR)
            os._exit(ExitCode.INTERRUPTED)
        interrupted.set()
        raise KeyboardInterrupt

    numbers = (signal.SIGINT, signal.SIGTERM)
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, on_signal) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
