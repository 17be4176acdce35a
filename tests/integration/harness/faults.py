"""What can be done to a running stack, each kind with the way to undo it."""

import random
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import psutil

from integration.harness.proxy import Answer, Blackhole, Cut, Fault, Proxy, Refuse, Slow
from stack.errors import NotRunning
from stack.process import Managed
from stack.topology import Stack

ENGINE_MODULE = "engine.process.server"
EVERYTHING = "everything"  # the target of a fault that hits all
GONE_SECONDS = 5.0


@dataclass(frozen=True)
class Victims:
    """What may be hit. ``s3`` and ``postgres`` stand before the servers of these names.

    ``longest`` is for how many seconds a process may be stopped: more than a lease lasts.
    """

    stack: Stack
    s3: Proxy
    postgres: Proxy
    longest: float


@dataclass(frozen=True, slots=True)
class Trouble:
    """One fault that is about to happen.

    Attributes:
        target: what it hits; two faults at once never share one.
        seconds: how long it lasts.
        begin: does it; false where there was nothing to hit.
        heal: undoes it.
    """

    kind: str
    target: str
    seconds: float
    begin: Callable[[], bool]
    heal: Callable[[], object] = lambda: None


Maker = Callable[[str, Victims, random.Random], Trouble]


def engine_of(worker: Managed) -> psutil.Process | None:
    """The engine process that a worker runs at the moment."""
    for process in worker.family():
        with suppress(psutil.Error):
            if ENGINE_MODULE in process.cmdline():
                return process
    return None


def strike(part: Managed, number: signal.Signals) -> bool:
    """Send a signal to this one process; its children live on, as after any crash."""
    try:
        process = psutil.Process(part.pid)
        part.signal(number)
    except (NotRunning, ProcessLookupError, psutil.NoSuchProcess):
        return False
    if number == signal.SIGKILL:
        with suppress(psutil.TimeoutExpired):
            process.wait(GONE_SECONDS)
    return True


def strike_engine(worker: Managed, number: signal.Signals) -> bool:
    """The same for a worker's engine."""
    engine = engine_of(worker)
    if engine is None:
        return False
    with suppress(psutil.NoSuchProcess):
        engine.send_signal(number)
    return True


def _part(kind: str, victims: Victims, source: random.Random) -> tuple[str, Managed]:
    """The process that a kind such as "kill worker" is about, and its name as a target."""
    stack = victims.stack
    name = kind.split()[-1]
    if name in ("worker", "engine"):
        number = source.randrange(len(stack.workers))
        return f"worker {number}", stack.workers[number]
    return name, {"api": stack.api, "reconciler": stack.reconciler}[name]


def _kill(kind: str, victims: Victims, source: random.Random) -> Trouble:
    target, part = _part(kind, victims, source)
    begin = partial(strike, part, signal.SIGKILL)
    return Trouble(kind, target, source.uniform(0, 4), begin, part.launch)


def _drain(kind: str, victims: Victims, source: random.Random) -> Trouble:
    target, part = _part(kind, victims, source)
    return Trouble(kind, target, source.uniform(0, 4), _true(part.stop), part.launch)


def _stop(kind: str, victims: Victims, source: random.Random) -> Trouble:
    target, part = _part(kind, victims, source)
    begin = partial(strike, part, signal.SIGSTOP)
    heal = partial(strike, part, signal.SIGCONT)
    return Trouble(kind, target, source.uniform(1, victims.longest), begin, heal)


def _kill_engine(kind: str, victims: Victims, source: random.Random) -> Trouble:
    target, part = _part(kind, victims, source)
    return Trouble(kind, target, 0, partial(strike_engine, part, signal.SIGKILL))


def _stop_engine(kind: str, victims: Victims, source: random.Random) -> Trouble:
    target, part = _part(kind, victims, source)
    begin = partial(strike_engine, part, signal.SIGSTOP)
    heal = partial(strike_engine, part, signal.SIGCONT)
    return Trouble(kind, target, source.uniform(1, victims.longest), begin, heal)


def _kill_server(kind: str, victims: Victims, source: random.Random) -> Trouble:
    stack = victims.stack
    server = {"postgres": stack.postgres, "valkey": stack.valkey}[kind.split()[-1]]
    return Trouble(kind, server.name, source.uniform(0, 4), _true(server.kill), server.start)


def _flush(kind: str, victims: Victims, source: random.Random) -> Trouble:
    return Trouble(kind, "valkey", 0, _true(victims.stack.valkey.flush))


def _power(kind: str, victims: Victims, source: random.Random) -> Trouble:
    """All processes end within a moment. The object store stays: its disk is its own."""
    stack = victims.stack
    parts: list[Managed] = [stack.api, *stack.workers, stack.reconciler]
    head_start = source.uniform(0, 2)

    def cut() -> bool:
        for part in (*parts, stack.valkey, stack.postgres):
            part.kill()
        return True

    def back() -> None:
        # In no order: they have to wait for each other.
        for part in parts:
            part.launch()
        time.sleep(head_start)
        stack.valkey.start()
        stack.postgres.start()

    return Trouble(kind, EVERYTHING, source.uniform(0, 3), cut, back)


def _between(
    kind: str, victims: Victims, source: random.Random, *faults: Fault, most: float = 12
) -> Trouble:
    """A fault of what lies between the processes and a server."""
    target = kind.split()[0]
    proxy = {"s3": victims.s3, "postgres": victims.postgres}[target]
    begin = _true(partial(proxy.set, source.choice(faults)))
    return Trouble(kind, target, source.uniform(2, most), begin, partial(proxy.set, None))


def _true(do: Callable[[], object]) -> Callable[[], bool]:
    def begin() -> bool:
        do()
        return True

    return begin


def _faults(*faults: Fault, most: float = 12) -> Maker:
    def make(kind: str, victims: Victims, source: random.Random) -> Trouble:
        return _between(kind, victims, source, *faults, most=most)

    return make


# Kind → how often it comes, relative to the others, and what makes it.
KINDS: Mapping[str, tuple[int, Maker]] = MappingProxyType(
    {
        "kill worker": (8, _kill),
        "kill engine": (6, _kill_engine),
        "kill api": (5, _kill),
        "kill reconciler": (3, _kill),
        "kill postgres": (4, _kill_server),
        "kill valkey": (4, _kill_server),
        "flush valkey": (3, _flush),
        "stop worker": (4, _stop),
        "stop engine": (3, _stop_engine),
        "stop api": (2, _stop),
        "stop reconciler": (2, _stop),
        "drain worker": (3, _drain),
        "power cut": (1, _power),
        "postgres answers lost": (3, _faults(Cut(0, 0.05), Cut(0, 0.3))),
        "postgres black hole": (2, _faults(Blackhole())),
        "s3 slow": (2, _faults(Slow(0.05, 2e6), Slow(0.5, 2e5))),
        "s3 5xx": (3, _faults(Answer(503, 0.5), Answer(500))),
        "s3 cut": (2, _faults(Cut(2_000, 0.5), Cut(20_000))),
        "s3 answers lost": (2, _faults(Cut(0, 0.3), Cut(0))),
        "s3 away": (2, _faults(Refuse())),
        "s3 black hole": (2, _faults(Blackhole())),
    }
)


def make(kind: str, victims: Victims, source: random.Random) -> Trouble:
    """A fault of this kind; ``source`` chooses the rest."""
    return KINDS[kind][1](kind, victims, source)
