"""A fresh Python process for an engine, before anybody knows its model.

It imports torch meanwhile, which takes a second. Imports little itself, so that a command can call
it before all else.
"""

import os
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO


@dataclass(slots=True)
class Launched:
    """A process that waits for its configuration, until it is taken or closed.

    Attributes:
        process: the process.
        socket: what it is spoken to through.
        log: what it prints.
        free: whether nobody took it or ended it yet.
    """

    process: subprocess.Popen[bytes]
    socket: socket.socket
    log: IO[bytes]
    free: bool = field(default=True, init=False)

    def take(self) -> None:
        """From now on its end is the caller's business."""
        assert self.free, "it was taken or ended before"
        self.free = False

    def close(self) -> None:
        """End the process, unless somebody took it."""
        if self.free:
            self.free = False
            self.process.kill()
            self.process.wait()
            self.socket.close()
            self.log.close()


def launch() -> Launched:
    """Start a process, and wait for nothing.

    It is started with ``subprocess``, not ``multiprocessing``, which would import the caller's
    main module again.
    """
    with ExitStack() as stack:
        log = stack.enter_context(tempfile.TemporaryFile())
        ours, theirs = map(stack.enter_context, socket.socketpair())
        process = subprocess.Popen(
            # -P: the user's working folder must not stand in for the standard library.
            [sys.executable, "-P", "-m", "engine.process.server", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(),
            # A group, so that Ctrl-C is for who feeds it. Not a session: Linux shares the processor
            # among sessions first, and no niceness counts between them (sched(7), autogroup).
            process_group=0,
        )
        stack.pop_all()  # the log and our end live as long as the process
    theirs.close()
    return Launched(process, ours, log)


def _environment() -> dict[str, str]:
    """This process's environment, with the folder that holds ``engine`` importable.

    Where it is installed it is importable anyway, and its folder must not come before the standard
    library.
    """
    variables = {**_openmp(), **os.environ}
    root = Path(__file__).resolve().parents[2]
    if root.name in ("site-packages", "dist-packages"):
        return variables
    paths = [str(root), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return variables | {"PYTHONPATH": os.pathsep.join(paths)}


def _openmp() -> dict[str, str]:
    """How long PyTorch's threads spin for their next work, unless the user has said it.

    By default it is for milliseconds, which they take from whatever else wants the processor. So
    many turns last from one operation to the next. The kernels in C have threads of their own.
    """
    return {} if "OMP_WAIT_POLICY" in os.environ else {"GOMP_SPINCOUNT": "20000"}
