"""What a command that serves does on Ctrl-C and SIGTERM."""

import _thread
import os
import signal
import threading
from types import FrameType


def stop_on_signals() -> threading.Event:
    """An event that the first Ctrl-C or SIGTERM sets; the second ends the process at once."""
    stop = threading.Event()
    heard = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            os._exit(128 + number)
        heard = True
        # Not here: the main thread may be inside the event, and hold its lock.
        _thread.start_new_thread(stop.set, ())

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop
