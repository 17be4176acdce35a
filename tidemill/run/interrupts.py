"""What Ctrl-C, SIGTERM and SIGHUP do to a command that has something to finish."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from tidemill.serve.signals import Heard, heeded

SHOW_CURSOR = b"\x1b[?25h\n"


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
