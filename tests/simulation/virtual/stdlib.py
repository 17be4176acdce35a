"""Stand-ins for the standard library where it would tell real time, run real threads or be random.

`installed` puts them into every loaded module of the product that uses the real ones, and takes
them out again.
"""

import random
import secrets
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from simulation.virtual.scheduler import Scheduler, Task


class Time:
    """The part of `time` that the product uses."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def time(self) -> float:
        return self._scheduler.now

    def time_ns(self) -> int:
        return int(self._scheduler.now * 1e9)

    def monotonic(self) -> float:
        task = self._scheduler.current
        return self._scheduler.now - (task.process.lag if task else 0.0)

    perf_counter = monotonic

    def sleep(self, seconds: float) -> None:
        self._scheduler.sleep(seconds)


class Secrets:
    """The part of `secrets` that the product uses."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def randbits(self, bits: int) -> int:
        return self._random.getrandbits(bits)

    def token_hex(self, size: int) -> str:
        return self._random.randbytes(size).hex()


class Lock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._held = False
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        until = None if timeout < 0 else self._scheduler.now + timeout
        while self._held:
            if not blocking or (until is not None and self._scheduler.now >= until):
                return False
            self._waiting.append(self._scheduler.task)
            self._scheduler.park(until)
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._scheduler.wake(task)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Condition:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._lock = Lock(scheduler)
        self._waiting: list[Task] = []

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        before = self._scheduler.now
        self._lock.release()
        self._waiting.append(self._scheduler.task)
        self._scheduler.park(None if timeout is None else before + timeout)
        self._lock.acquire()
        return timeout is None or self._scheduler.now < before + timeout

    def wait_for(self, holds: Callable[[], bool], timeout: float | None = None) -> bool:
        end = None if timeout is None else self._scheduler.now + timeout
        while not holds():
            left = None if end is None else end - self._scheduler.now
            if left is not None and left <= 0:
                return False
            self.wait(left)
        return True

    def notify_all(self) -> None:
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._scheduler.wake(task)

    notify = notify_all


class Event:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_set = False
        self._waiting: list[Task] = []

    def is_set(self) -> bool:
        return self._is_set

    def clear(self) -> None:
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        waiting, self._waiting = self._waiting, []
        for task in waiting:
            self._scheduler.wake(task)

    def wait(self, timeout: float | None = None) -> bool:
        end = None if timeout is None else self._scheduler.now + timeout
        while not self._is_set and (end is None or self._scheduler.now < end):
            self._waiting.append(self._scheduler.task)
            self._scheduler.park(end)
        return self._is_set


class Thread:
    """A thread of the process that makes it."""

    def __init__(
        self,
        scheduler: Scheduler,
        target: Callable[..., object],
        name: str = "thread",
        args: tuple[Any, ...] = (),
        daemon: bool = True,
    ) -> None:
        self._scheduler = scheduler
        self._body = lambda: target(*args)
        self._name = name
        self._process = scheduler.task.process
        self._task: Task | None = None

    def start(self) -> None:
        self._task = self._scheduler.spawn(self._process, self._name, self._body)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done

    def join(self, timeout: float | None = None) -> None:
        end = None if timeout is None else self._scheduler.now + timeout
        while (task := self._task) is not None and not task.done:
            if end is not None and self._scheduler.now >= end:
                return
            task.joining.append(self._scheduler.task)
            self._scheduler.park(end)


class Threading:
    """The part of `threading` that the product uses."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def Lock(self) -> Lock:
        return Lock(self._scheduler)

    RLock = Lock

    def Condition(self) -> Condition:
        return Condition(self._scheduler)

    def Event(self) -> Event:
        return Event(self._scheduler)

    def Thread(self, **options: Any) -> Thread:
        return Thread(self._scheduler, **options)


class Log:
    """A log whose events go to the trace; `listen` hears of each."""

    def __init__(self, scheduler: Scheduler, listen: Callable[[str, str, dict[str, Any]], None]):
        self._scheduler = scheduler
        self._listen = listen

    def _event(self, level: str, event: str, values: dict[str, Any]) -> None:
        task = self._scheduler.current
        if task is None or not task.process.alive:
            return
        said = " ".join(f"{name}={value}" for name, value in values.items())
        self._scheduler.note(f"log {event} {said}")
        self._listen(level, event, values)

    def debug(self, event: str, **values: Any) -> None:
        self._event("debug", event, values)

    def info(self, event: str, **values: Any) -> None:
        self._event("info", event, values)

    def warning(self, event: str, **values: Any) -> None:
        self._event("warning", event, values)

    def error(self, event: str, **values: Any) -> None:
        self._event("error", event, values)

    def exception(self, event: str, **values: Any) -> None:
        self._event("exception", event, {**values, "error": repr(sys.exc_info()[1])})


@contextmanager
def installed(
    scheduler: Scheduler, seed: int, listen: Callable[[str, str, dict[str, Any]], None]
) -> Iterator[None]:
    """The product's modules use virtual time, threads, randomness and logs meanwhile."""
    instead = {
        id(time): Time(scheduler),
        id(random): random.Random(seed ^ 0x5EED),
        id(secrets): Secrets(seed ^ 0x1D5),
        id(threading): Threading(scheduler),
    }
    log = Log(scheduler, listen)
    changed: list[tuple[Any, str, Any]] = []
    for name, module in sorted(dict(sys.modules).items()):
        if name.partition(".")[0] not in ("storage", "worker"):
            continue
        for attribute in ("time", "random", "secrets", "threading"):
            real = vars(module).get(attribute)
            if id(real) in instead:
                changed.append((module, attribute, real))
                setattr(module, attribute, instead[id(real)])
        if "log" in vars(module):
            changed.append((module, "log", module.log))
            setattr(module, "log", log)  # noqa: B010
    try:
        yield
    finally:
        for module, attribute, real in changed:
            setattr(module, attribute, real)
