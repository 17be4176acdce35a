"""Virtual time, and processes of threads that run one at a time in an order the seed chooses.

A thread is a greenlet. It runs until it parks: until a time, until somebody wakes it, or both. The
scheduler then lets the thread run whose time comes first. So code between two parks is atomic, and
time passes only while nobody runs.
"""

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import greenlet


class Killed(BaseException):
    """The process of this thread was killed: it unwinds, and nothing that it does has effects."""


@dataclass(eq=False)
class Process:
    """An operating system's process.

    Attributes:
        faulty: whether it may be killed and frozen.
        frozen_until: no thread of it runs before.
        lag: seconds that its monotonic clock has missed, as in a suspended virtual machine.
        unnoticed: whether it misses those of the present freeze.
        deferred: threads whose time came while it was frozen.
    """

    name: str
    faulty: bool = True
    alive: bool = True
    frozen_until: float = 0.0
    lag: float = 0.0
    threads: "list[Task]" = field(default_factory=list)
    unnoticed: bool = False
    deferred: "list[tuple[Task, int]]" = field(default_factory=list)


class Task:
    """A thread of a process."""

    def __init__(
        self, scheduler: "Scheduler", process: Process, name: str, body: Callable[[], object]
    ) -> None:
        self.process = process
        self.name = name
        self.ticket = 0  # entries of the heap with another one are out of date
        self.done = False
        self.joining: list[Task] = []
        self.greenlet = greenlet(lambda: scheduler.live(self, body), scheduler.hub)


class Scheduler:
    """Runs tasks and timed calls in the order of their times; ties in the order they were made."""

    def __init__(self, seed: int, start: float) -> None:
        self.random = random.Random(seed)
        self.now = start
        self.hub = greenlet.getcurrent()
        self.current: Task | None = None
        self.trace: list[tuple[float, str, str]] = []
        self.stopped = False
        self.died: Callable[[Process], None] = lambda process: None
        self._heap: list[tuple[float, int, Task | None, Any]] = []
        self._made = 0
        self._tasks: list[Task] = []

    # For whoever sets the scene

    def spawn(self, process: Process, name: str, body: Callable[[], object]) -> Task:
        """A new thread; it first runs at the present time."""
        task = Task(self, process, name, body)
        process.threads.append(task)
        self._tasks.append(task)
        self._push(self.now, task, task.ticket)
        return task

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Call this at a time, outside of every thread."""
        self._push(time, None, call)

    def run(self, until: Callable[[], bool], deadline: float) -> None:
        """Run until this holds, the deadline has come, somebody stopped it, or nothing is left."""
        while not self.stopped and not until():
            if not self._heap or self._heap[0][0] > deadline:
                self.now = max(self.now, min(deadline, self.now + 1e9))
                return
            self._step()

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        who = "-"
        if self.current is not None:
            who = f"{self.current.process.name}/{self.current.name}"
        self.trace.append((self.now, who, what))

    def close(self) -> None:
        """Unwind every thread that is left."""
        for task in self._tasks:
            task.process.alive = False
        for task in self._tasks:
            if not task.done and task.greenlet:
                self.current = task
                task.greenlet.throw(Killed)
        self.current = None

    # For processes

    def kill(self, process: Process) -> None:
        """SIGKILL: its threads end where they are."""
        if not process.alive:
            return
        process.alive = False
        self.died(process)
        for task in process.threads:
            if task is not self.current and not task.done:
                self.wake(task)

    def freeze(self, process: Process, seconds: float, *, unnoticed: bool) -> None:
        """SIGSTOP for a while; ``unnoticed`` if its own clock stands still meanwhile."""
        until = self.now + seconds
        process.unnoticed = unnoticed
        process.lag += seconds if unnoticed else 0.0
        process.frozen_until = until
        self.at(until, lambda: self._thaw(process))

    def thaw(self, process: Process, seconds: float) -> None:
        """Let a frozen process go on after so many seconds, if that is sooner."""
        sooner = process.frozen_until - (self.now + seconds)
        if sooner > 0:
            process.lag -= sooner if process.unnoticed else 0.0
            process.frozen_until -= sooner
            self.at(process.frozen_until, lambda: self._thaw(process))

    # For threads

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.park(self.now + max(0.0, seconds))

    def park(self, until: float | None = None) -> None:
        """Wait for `wake`, or for a time."""
        task = self.task
        if not task.process.alive:
            raise Killed
        task.ticket += 1
        if until is not None:
            self._push(until, task, task.ticket)
        self.hub.switch()
        if not task.process.alive:
            raise Killed

    def wake(self, task: Task) -> None:
        """Let a parked thread run now."""
        if not task.done:
            self._push(self.now, task, task.ticket)

    def halt(self) -> None:
        """Stop everything at this very point, for good."""
        self.stopped = True
        if self.current is not None and self.current.process.alive:
            self.current.process.alive = False
            self.hub.switch()
            raise Killed

    @property
    def task(self) -> Task:
        """The thread that runs."""
        if self.current is None:
            raise RuntimeError("no thread of the simulation runs")
        return self.current

    def live(self, task: Task, body: Callable[[], object]) -> None:
        """The life of a thread, in its greenlet."""
        try:
            if task.process.alive:
                body()
        except Killed:
            pass
        finally:
            task.done = True
            for waiting in task.joining:
                self.wake(waiting)

    def _push(self, time: float, task: Task | None, what: Any) -> None:
        self._made += 1
        heapq.heappush(self._heap, (time, self._made, task, what))

    def _thaw(self, process: Process) -> None:
        if self.now < process.frozen_until:
            return
        deferred, process.deferred = process.deferred, []
        for task, ticket in deferred:
            # Threads of a process that wakes up run in any order.
            self._push(self.now + self.random.random() * 0.05, task, ticket)

    def _step(self) -> None:
        time, _, task, what = heapq.heappop(self._heap)
        if task is None:
            self.now = max(self.now, time)
            what()
            return
        if task.done or what != task.ticket:
            return
        process = task.process
        if process.alive and process.frozen_until > max(self.now, time):
            process.deferred.append((task, what))
            return
        self.now = max(self.now, time)
        task.ticket += 1
        self.current = task
        try:
            task.greenlet.switch()
        finally:
            self.current = None
