"""What Ctrl-C and SIGTERM do to a command that serves until it is stopped."""

import _thread
import os
import signal
import threading
from types import FrameType

LOOK_SECONDS = 0.5


def stop_on_signals() -> threading.Event:
    """An event that the first Ctrl-C or SIGTERM sets; the second ends the process at once."""
    stop = threading.Event()
    heard = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal heard
        if heard:
            os._exit(128 + number)
        heard = True
        # In a thread of its own: the main thread may be inside the event and hold its lock.
        _thread.start_new_thread(stop.set, ())

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


def wait_until_set(event: threading.Event) -> None:
    """Wait for an event that a signal's handler sets.

    The wait ends every half second for a moment. A process that was paused may take a signal in
    any of its threads, but handlers run in the main thread alone, and only while it is not waiting.
    """
    while not event.wait(LOOK_SECONDS):
        pass
