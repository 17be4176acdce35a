"""The feeding side: start, submit, poll, and a clear report when the engine dies."""

import os
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import closing
from multiprocessing.connection import Connection
from signal import Signals
from threading import Lock
from time import monotonic
from typing import IO

from engine import errors
from engine.config import EngineConfig
from engine.errors import EngineDied, EngineError
from engine.info import EngineInfo
from engine.process.launch import Launched, launch
from engine.process.messages import (
    Cancel,
    Close,
    Done,
    Failed,
    Flush,
    FromEngine,
    Ready,
    Submit,
    ToEngine,
)
from engine.requests import Completion, EngineStats, Request

LOG_TAIL_BYTES = 8192
HANG_SECONDS = 120.0
_ERRORS = {
    cls.code: cls
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, EngineError)
}


class EngineProcess:
    """An engine in a fresh Python process, resident until `close`.

    One thread may submit while another polls.

    Args:
        config: the engine's settings.
        launched: a process to use, instead of one that is started by `spawn`.

    Attributes:
        hang_seconds: having requests and saying nothing for so long, it counts as died.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        hang_seconds: float = HANG_SECONDS,
        launched: Launched | None = None,
    ) -> None:
        self._config = config
        self._launched = launched
        self.hang_seconds = hang_seconds
        self._silent_seconds = 0.0
        self._submitted = 0  # by the submitting thread alone
        self._finished = 0  # by the polling thread alone
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[EngineConfig | ToEngine, FromEngine] | None = None
        self._sending = Lock()
        self._closed = False
        self._closing = Lock()  # held while the process comes to be this one's
        self._stats = EngineStats()
        self._log: IO[bytes] | None = None

    def spawn(self) -> None:
        """Start the process, and wait for nothing: `start` does, while the model is loaded.

        Raises:
            EngineDied: the process ended at once, or `close` was called before.
        """
        with closing(self._launched or launch()) as launched, self._closing:
            if self._closed:
                raise EngineDied("The engine was closed before it was started.")
            ours = launched.socket
            # A process that is stopped reads nothing, and a pipe that is full would be waited for.
            limit = struct.pack("@ll", int(self.hang_seconds) + 1, 0)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            launched.take()
            self._process, self._log = launched.process, launched.log
            self._connection = Connection(ours.detach())
        self._send(self._config)

    def start(self, timeout: float = 300.0) -> EngineInfo:
        """Start the process, unless that is done, and load the model.

        Raises:
            EngineError: loading failed; of the type that says why.
            EngineDied: the process ended, or was not ready after ``timeout`` seconds.
        """
        if self._process is None:
            self.spawn()
        deadline = monotonic() + timeout
        while (message := self._receive(max(0.0, deadline - monotonic()))) is None:
            if monotonic() >= deadline:
                self.close(timeout=0)
                raise EngineDied(f"The engine was not ready after {timeout:g} seconds.")
        match message:
            case Ready(info):
                return info
            case Failed(code, text):
                self.close()
                raise _ERRORS.get(code, EngineError)(text)
            case Done():
                raise EngineError("The engine answered before it was ready.")

    def submit(self, requests: Sequence[Request]) -> None:
        """Queue requests. Raises `EngineDied`."""
        self._submitted += len(requests)
        self._send(Submit(tuple(requests)))

    def cancel(self, request_ids: Iterable[str]) -> None:
        """Stop requests; each still comes back from `poll`. Raises `EngineDied`."""
        self._send(Cancel(tuple(request_ids)))

    def flush(self) -> None:
        """Say that no more requests come soon. Raises `EngineDied`."""
        self._send(Flush())

    def poll(self, timeout: float) -> list[Completion]:
        """What was finished since the last call; empty after ``timeout`` seconds, or earlier.

        Raises:
            EngineDied: the process ended, or hung and was ended; requests without a completion are
                lost.
        """
        done: list[Completion] = []
        began = monotonic()
        message = self._receive(timeout)
        if message is None:
            self._listen(min(monotonic() - began, timeout + 1.0))
        else:
            self._silent_seconds = 0.0
        while message is not None:
            if isinstance(message, Done):
                self._stats = message.stats
                done += message.completions
            message = self._receive_more() if done else None
        self._finished += len(done)
        return done

    def _listen(self, seconds: float) -> None:
        """Nothing was heard for so long. What counts is time spent listening.

        On the clock, a machine or a container that was suspended would find every engine hung.
        """
        if self._submitted == self._finished:
            self._silent_seconds = 0.0
            return
        self._silent_seconds += seconds
        if self._silent_seconds > self.hang_seconds:
            raise self._hung()

    def _receive_more(self) -> FromEngine | None:
        """As `_receive`, without waiting; a death is left to the next call to report."""
        try:
            return self._receive(0)
        except EngineDied:
            return None

    def stats(self) -> EngineStats:
        """The counters of the engine's last message."""
        return self._stats

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        """The process id, once started."""
        return self._process.pid if self._process else None

    def close(self, timeout: float = 10.0) -> None:
        """End the process: asked first, killed after ``timeout`` seconds. None is started later."""
        with self._closing:
            self._closed = True
        if self._process is None or self._connection is None:
            return
        if self.alive:
            try:
                self._send(Close())
                self._process.wait(timeout)
            except (EngineDied, subprocess.TimeoutExpired):
                self._process.kill()
        self._process.wait()
        if not self._connection.closed:
            self._connection.close()
        if self._log is not None:
            self._log.close()

    def _send(self, message: EngineConfig | ToEngine) -> None:
        if self._connection is None:
            raise EngineDied("The engine was not started.")
        try:
            with self._sending:
                self._connection.send(message)
        except BlockingIOError as error:
            raise self._hung() from error
        except OSError as error:
            raise self._died() from error

    def _receive(self, timeout: float) -> FromEngine | None:
        if self._connection is None:
            raise EngineDied("The engine was not started.")
        try:
            if self._connection.poll(timeout):
                return self._connection.recv()
        except BlockingIOError as error:
            raise self._hung() from error
        except (EOFError, OSError) as error:
            raise self._died() from error
        return None

    def _hung(self) -> EngineDied:
        """End a process that says nothing, stopped ones too."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        return EngineDied(
            f"The engine gave no sign of life for {self.hang_seconds:g} seconds and was ended.",
            exit_code=self._exit_code(),
            log_tail=self._log_tail(),
        )

    def _died(self) -> EngineDied:
        code = self._exit_code()
        tail = self._log_tail()
        if code is not None and code < 0:
            how = f"was killed by {Signals(-code).name}"
            if Signals(-code) is Signals.SIGKILL:
                how += " (out of memory?)"
        else:
            how = f"ended with status {code}"
        last = tail.strip().splitlines()[-1:]
        hint = f": {last[0]}" if last else "."
        return EngineDied(f"The engine process {how}{hint}", exit_code=code, log_tail=tail)

    def _exit_code(self) -> int | None:
        """The exit status; a process that closed its end but lingers is killed."""
        if self._process is None:
            return None
        try:
            return self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return None

    def _log_tail(self) -> str:
        if self._log is None:
            return ""
        try:
            self._log.seek(0, os.SEEK_END)
            self._log.seek(max(0, self._log.tell() - LOG_TAIL_BYTES))
            return self._log.read().decode("utf-8", "replace")
        except (OSError, ValueError):  # another thread closes it
            return ""
