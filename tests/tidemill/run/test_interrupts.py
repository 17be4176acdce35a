"""Ctrl-C and SIGTERM: the first is an exception, the second the end."""

import signal
import subprocess
import sys

import pytest

CODE = """
import time
from tidemill.run.interrupts import interruptible

with interruptible():
    for word in ("first", "second"):
        try:
            print(word, flush=True)
            time.sleep(30)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_one_is_an_interrupt_and_the_second_one_the_end(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", CODE], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        assert process.stdout.readline() == "first\n"
        process.send_signal(number)
        assert process.stdout.readline() == "interrupted\n"
        assert process.stdout.readline() == "second\n"
        process.send_signal(number)
        assert process.wait(10) == 130
        assert process.stdout.read() == ""


def test_a_signal_that_is_ignored_stays_so() -> None:
    code = (
        "import os, signal\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from tidemill.run.interrupts import interruptible\n"
        "with interruptible():\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('still here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "still here\n")
