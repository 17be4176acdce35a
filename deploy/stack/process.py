"""One process of the stack: started, health-checked, logged, signalled, killed and stopped."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from stack.errors import NotReady, NotRunning
from stack.guard import Guard

POLL_SECONDS = 0.05
END_SECONDS = 5.0


class Managed:
    """A child process in a process group of its own, which ends when this process ends.

    Args:
        name: names the log file, too.
        command: the program and its arguments.
        folder: the process's working directory; made when it is not there.
        logs: the folder of ``NAME.log``, to which every start appends; by default ``folder``.
        environment: the process's whole environment; by default this process's.
        ready: a regular expression that the process prints once it is ready.
        start_seconds: how long `start` waits for that.

    Attributes:
        starts: how many times it was started.
    """

    stop_signal = signal.SIGTERM
    stop_seconds = 30.0

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        folder: Path,
        logs: Path | None = None,
        environment: Mapping[str, str] | None = None,
        ready: str | None = None,
        start_seconds: float = 60.0,
    ) -> None:
        self.name = name
        self.command = list(command)
        self.folder = folder
        self.log_path = (logs or folder) / f"{name}.log"
        self.environment = dict(os.environ if environment is None else environment)
        self.start_seconds = start_seconds
        self.starts = 0
        self._ready = None if ready is None else re.compile(ready.encode())
        self._process: subprocess.Popen[bytes] | None = None
        self._guard: Guard | None = None
        self._log_begin = 0
        self._said_ready = False
        self._asked = False

    @property
    def pid(self) -> int:
        """The process's id.

        Raises:
            NotRunning: it does not run.
        """
        if self._process is None or self._process.poll() is not None:
            raise NotRunning(f"{self.name} does not run.")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there, stopped by SIGSTOP or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """How the last run ended, the negative signal if by one; ``None`` while it goes on."""
        return None if self._process is None else self._process.poll()

    def prepare(self) -> None:
        """Whatever has to happen before each start; kinds of servers have their own."""

    def healthy(self) -> bool:
        """Whether it runs and has said that it is ready."""
        if not self.running:
            return False
        if not self._said_ready:
            self._said_ready = self._ready is None or self._ready.search(self.log()) is not None
        return self._said_ready

    def launch(self) -> Self:
        """Start it and return at once. Does nothing while it runs."""
        if self.running:
            return self
        self._end()
        for folder in (self.folder, self.log_path.parent):
            folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        with self.log_path.open("ab") as log:
            self._log_begin = log.tell()
            self._said_ready = self._asked = False
            self._process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._guard = Guard(self._process.pid)
        self.starts += 1
        return self

    def start(self) -> Self:
        """Start it and wait until it is healthy.

        Raises:
            NotReady: it ended before that, or took longer than ``start_seconds``.
        """
        return self.launch().wait_ready()

    def wait_ready(self, seconds: float | None = None) -> Self:
        """Wait until it is healthy, by default for ``start_seconds``.

        Raises:
            NotReady: it ended before that, or took longer.
        """
        seconds = self.start_seconds if seconds is None else seconds
        deadline = time.monotonic() + seconds
        while not self.healthy():
            if not self.running:
                raise self._not_ready(f"ended with code {self.returncode} instead of starting")
            if time.monotonic() > deadline:
                raise self._not_ready(f"was not ready after {seconds:.0f} s")
            time.sleep(POLL_SECONDS)
        return self

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to this one process, not to its children.

        Raises:
            NotRunning: it does not run.
        """
        os.kill(self.pid, number)

    def ask_to_stop(self) -> None:
        """Tell it to end, and return at once. It is told once: a second signal would hurry it."""
        if self._process is not None and not self._asked:
            self._asked = True
            self._process.send_signal(self.stop_signal)
            self._process.send_signal(signal.SIGCONT)

    def stop(self, timeout: float | None = None) -> int | None:
        """Tell it to end, and kill what is left of it and its children after ``timeout`` seconds.

        Returns:
            The exit code, negative where a signal ended it; ``None`` if it was never started.
        """
        if self._process is None:
            return None
        family = self.family()
        self.ask_to_stop()
        if self.running:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self.stop_seconds if timeout is None else timeout)
        self._end(family)
        return self.returncode

    def kill(self) -> None:
        """SIGKILL it and everything that it started, as a power cut or the kernel would."""
        self._end(self.family())

    def restart(self) -> Self:
        """Kill what runs of it, start it anew and wait until it is healthy."""
        self.kill()
        return self.start()

    def family(self) -> list[psutil.Process]:
        """The processes that it started, and theirs, that are alive; none while it does not run."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except (NotRunning, psutil.NoSuchProcess):
            return []

    def log(self) -> bytes:
        """What it has printed since its last start, or ``b""``."""
        if not self.log_path.exists():
            return b""
        with self.log_path.open("rb") as file:
            file.seek(self._log_begin)
            return file.read()

    def log_tail(self, lines: int = 30) -> str:
        """The last lines that it has printed since its last start."""
        return "\n".join(self.log().decode(errors="replace").splitlines()[-lines:])

    def _end(self, family: Sequence[psutil.Process] = ()) -> None:
        """Kill its process group and these processes, and wait for its own end."""
        process, guard = self._process, self._guard
        if process is None or guard is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        kill_all(family)
        process.wait()
        guard.release()
        self._guard = None

    def _not_ready(self, why: str) -> NotReady:
        return NotReady(f"{self.name} {why}. {self.log_path} ends with:\n{self.log_tail()}")


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL these and wait until they have ended, if they are not stuck in the kernel."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    deadline = time.monotonic() + END_SECONDS
    while not all(map(_has_ended, processes)) and time.monotonic() < deadline:
        time.sleep(0.005)


def _has_ended(process: psutil.Process) -> bool:
    # A zombie holds no port and no file any more; when it goes is up to its parent.
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
