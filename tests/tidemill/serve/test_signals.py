"""Ctrl-C and SIGTERM: the first is an exception, the second the end."""

import signal
import subprocess
import sys

import pytest

CODE = """
import time
from tidemill.serve.signals import interruptible

with interruptible():
    for word in ("first", "second"):
        try:
            print(word, flush=True)
            for _ in range(300):  # a signal just ahead of a sleep does not end it
                time.sleep(0.1)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("first", "unheard", "last"),
    [
        (signal.SIGINT, None, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, None, signal.SIGTERM),
        (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM),
    ],
)
def test_the_first_one_is_an_interrupt_and_the_second_one_the_end(
    first: signal.Signals, unheard: signal.Signals | None, last: signal.Signals
) -> None:
    """The echo of the first one, which `timeout` and shells send to the group, is not the end."""
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "first\n"
        process.send_signal(first)
        if unheard is not None:
            process.send_signal(unheard)
        assert process.stdout.readline() == "interrupted\n"
        assert process.stdout.readline() == "second\n"
        process.send_signal(last)
        assert process.wait(10) == 128 + last
        assert process.stdout.read() == ""


def test_a_signal_that_is_ignored_stays_so() -> None:
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from tidemill.serve.signals import interruptible\n"
        "with interruptible():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "still here\n")
