"""The engine's side: ``python -m engine.process.server FD``, started by `EngineProcess`.

Three threads, so that the step loop waits for no pipe and decodes no text: one reads commands, one
decodes and writes results, the main one runs steps.
"""

import faulthandler
import gc
import os
import signal
import sys
import threading
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from time import monotonic, sleep
from typing import TYPE_CHECKING

from engine.config import EngineConfig
from engine.errors import EngineError, EngineMissing
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
from engine.requests import EngineStats

if TYPE_CHECKING:
    from engine.core import EngineCore
    from engine.output import FinishedRequest

_Report = tuple[list["FinishedRequest"], EngineStats]

STATS_SECONDS = 0.5
IDLE_SECONDS = 0.001


def main(fd: int) -> None:
    """Load the model named by the first message, then serve until told to close."""
    faulthandler.enable()
    threading.excepthook = _give_up
    # Ctrl-C is for the process that feeds this one; it decides when the engine ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection: Connection[FromEngine, EngineConfig | ToEngine] = Connection(fd)
    _import_core()
    try:
        config = connection.recv()
    except EOFError:
        return  # whoever launched this process needs no engine
    if not isinstance(config, EngineConfig):
        raise TypeError("the first message must be the configuration")
    # From now on, so that an engine whose feeder dies meanwhile does not load to no end.
    inbox: SimpleQueue[ToEngine] = SimpleQueue()
    threading.Thread(target=_read, args=(connection, inbox), daemon=True).start()
    try:
        core = _load(config)
        gc.freeze()  # the little garbage among it, too: to look for it takes a tenth of a second
        gc.enable()
    except EngineError as error:
        connection.send(Failed(error.code, str(error)))
        return
    connection.send(Ready(core.info))
    outbox: SimpleQueue[_Report] = SimpleQueue()
    threading.Thread(target=_write, args=(connection, outbox), daemon=True).start()
    _serve(core, inbox, outbox)


def _import_core() -> None:
    """Import what takes long, before the configuration is there; `_load` tells what is missing."""
    # Nothing that imports make is garbage, and looking for it took a tenth of their time.
    gc.disable()
    with suppress(ModuleNotFoundError):
        import_module("engine.core")


def _load(config: EngineConfig) -> "EngineCore":
    try:
        from engine.core import EngineCore  # the one import that needs torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EngineMissing from error
    return EngineCore(config)


def _read(connection: "Connection[FromEngine, ToEngine]", inbox: "SimpleQueue[ToEngine]") -> None:
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        # Whoever fed this engine is gone, and with it every reason to go on.
        os._exit(0)


def _write(connection: "Connection[FromEngine, ToEngine]", outbox: "SimpleQueue[_Report]") -> None:
    while True:
        finished, stats = outbox.get()
        message = Done(tuple(each.completion() for each in finished), stats)
        try:
            connection.send(message)
        except OSError:
            os._exit(0)


def _give_up(failure: threading.ExceptHookArgs) -> None:
    """End with a report: an engine that is deaf or mute would be waited for without end."""
    threading.__excepthook__(failure)
    os._exit(1)


class _Reports:
    """What the step loop says: finished requests at once, and every so often that it goes on.

    The second is the engine's sign of life. It comes from the loop itself, in the middle of a long
    step too, since a thread beside it would go on while the loop hangs.
    """

    def __init__(self, core: "EngineCore", outbox: "SimpleQueue[_Report]") -> None:
        self._core = core
        self._outbox = outbox
        self._told = 0.0

    def tell(self, done: list["FinishedRequest"]) -> None:
        self._outbox.put((done, self._core.stats()))
        self._told = monotonic()

    def alive(self) -> None:
        if monotonic() - self._told >= STATS_SECONDS:
            self.tell([])


def _serve(
    core: "EngineCore", inbox: "SimpleQueue[ToEngine]", outbox: "SimpleQueue[_Report]"
) -> None:
    reports = _Reports(core, outbox)
    core.on_progress(reports.alive)
    while True:
        done: list[FinishedRequest] = []
        while (message := _next(inbox, block=not (core.has_work or done))) is not None:
            if isinstance(message, Close):
                _end_keepers()
                os._exit(0)  # at once: nobody reads what is still to be written
            done += _obey(core, message)
        done += core.step()
        if done or not core.has_work:
            reports.tell(done)
        else:
            reports.alive()
        if not done and core.has_work and not core.stats().running:
            sleep(IDLE_SECONDS)  # a static or dynamic batch that has yet to fill


def _end_keepers() -> None:
    from engine.prepared.keeper import end_keepers  # needs torch, as the core does

    end_keepers()


def _next(inbox: "SimpleQueue[ToEngine]", *, block: bool) -> ToEngine | None:
    try:
        return inbox.get(block=block)
    except Empty:
        return None


def _obey(core: "EngineCore", message: ToEngine) -> list["FinishedRequest"]:
    match message:
        case Submit(requests):
            for request in requests:
                core.add(request)
        case Cancel(request_ids):
            return core.cancel(request_ids)
        case Flush():
            core.flush()
        case Close():
            pass
    return []


if __name__ == "__main__":
    main(int(sys.argv[1]))
