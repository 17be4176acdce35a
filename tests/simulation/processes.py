"""The processes of a run: workers, as the product builds them, and clients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import worker.run.drain
from simulation.scenario import MODEL, Scenario
from simulation.virtual.database import Memory
from simulation.virtual.echo import Echo, text_model
from simulation.virtual.points import Points
from simulation.virtual.scheduler import Process, Scheduler
from simulation.virtual.stdlib import Event
from simulation.virtual.store import Store
from storage.errors import StorageError
from storage.jobs.waiting_jobs import waiting_jobs
from storage.settings import Settings
from storage.wakeups import Wakeup
from worker.allowance import Allowance
from worker.context import WorkerContext
from worker.errors import WorkerError
from worker.finish.finalizer import finalize_job
from worker.finish.garbage import collect_garbage
from worker.models.engines import Engines
from worker.plan.job import plan_job
from worker.process.reconciler import tick
from worker.run.drain import drain
from worker.shards.write import write_output

BEAT_SECONDS = 12.0
COLLECT_SECONDS = 40.0


@dataclass
class Parts:
    """What every process of a run shares."""

    scheduler: Scheduler
    points: Points
    database: Memory
    store: Store
    scenario: Scenario
    settings: Settings
    wakeups: "Bus"
    crash: Callable[[BaseException], None]
    beat: Callable[[], float]
    news: Callable[["Look | None"], bool]
    version: Callable[[], int]


class Bus:
    """Wake-ups: they come late, twice or not at all, and to any one worker."""

    def __init__(self, scheduler: Scheduler, points: Points) -> None:
        self._scheduler = scheduler
        self._points = points
        self.listeners: list[Callable[[Wakeup], None]] = []

    def send(self, wakeup: Wakeup) -> None:
        """As `storage.wakeups.Wakeups.send`."""
        faults, rng = self._points.faults, self._scheduler.random
        if self._points.dice(faults.lost):
            return
        for _ in range(2 if self._points.dice(faults.doubled) else 1):
            delay = rng.choice((0.01, 0.1, 2.0))
            self._scheduler.at(self._scheduler.now + delay, lambda: self._arrive(wakeup))

    def _arrive(self, wakeup: Wakeup) -> None:
        if self.listeners:
            self._scheduler.random.choice(self.listeners)(wakeup)


@dataclass(frozen=True, slots=True)
class Look:
    """When somebody last looked at the rows, and which version of them it was."""

    time: float
    version: int


@dataclass
class Worker:
    """One worker process: a thread that drains, one that plans and finalizes, a reconciler, and one
    that writes shards, where there are any.

    Each looks at the rows when a wake-up comes, and otherwise once a beat. A look that cannot find
    anything new is left out: it would take most of a run's time.
    """

    parts: Parts
    name: str
    process: Process = field(init=False)
    context: WorkerContext = field(init=False)

    def __post_init__(self) -> None:
        parts, scheduler = self.parts, self.parts.scheduler
        self.process = Process(self.name)
        self._events = [Event(scheduler) for _ in range(4)]
        self.context = WorkerContext(
            settings=settings(parts.scenario, newer=self.name[-1] in "02468"),
            database=parts.database,
            store=parts.store,
            wakeups=parts.wakeups,
            engines=Engines(parts.settings.engine, lambda config: Echo(scheduler, parts.points)),
            load_text_model=text_model,
            owner=self.name,
            leaving=Event(scheduler),  # type: ignore[arg-type]
            stopping=Event(scheduler),  # type: ignore[arg-type]
        )

    def start(self) -> None:
        """Let its threads run."""
        events = self._events
        threads = [
            ("drain", events[0], self._drain, 1.0),
            ("prepare", events[1], self._prepare, 1.0),
            ("reconcile", events[2], self._reconcile, 2.0),
        ]
        if any(batch.written for batch in self.parts.scenario.batches):
            threads.append(("shards", events[3], self._write, 1.0))
        for name, event, look, beats in threads:
            self.parts.scheduler.spawn(self.process, name, self._looking(event, look, beats))

    def hear(self, wakeup: Wakeup) -> None:
        """A wake-up came."""
        settle = wakeup.task == "tidemill.reconcile"
        for index, event in enumerate(self._events):
            if settle or index != 2:
                event.set()

    def _looking(self, event: Event, look: Callable[[], None], beats: float) -> Callable[[], None]:
        parts = self.parts

        def loop() -> None:
            last: Look | None = None
            while not self.context.stopping.is_set():
                if parts.news(last):
                    struck = parts.points.struck
                    last = Look(parts.scheduler.now, parts.version())
                    try:
                        look()
                    except (StorageError, WorkerError) as error:
                        parts.points.note(f"failed: {type(error).__name__}")
                    except Exception as error:  # noqa: BLE001 - whatever it is, it is reported
                        parts.crash(error)
                    if parts.points.struck != struck:
                        last = None
                event.wait(parts.beat() * beats)
                event.clear()

        return loop

    def _drain(self) -> None:
        if not self.context.leaving.is_set() and drain(self.context, MODEL):
            tick(self.context)

    def _prepare(self) -> None:
        for job in waiting_jobs(self.context.database, short=True):
            if self.context.leaving.is_set():
                return
            work = plan_job if job.plan else finalize_job
            few = self.parts.scheduler.random.randrange(1, 8)
            if self.parts.points.dice(0.3) and work(self.context, job.job_id, Allowance(few)):
                continue
            work(self.context, job.job_id)

    def _write(self) -> None:
        while not self.context.leaving.is_set() and write_output(self.context):
            pass

    def _reconcile(self) -> None:
        tick(self.context)
        if self.parts.points.dice(BEAT_SECONDS / COLLECT_SECONDS):
            collect_garbage(self.context)


def settings(scenario: Scenario, *, newer: bool = False) -> Settings:
    """A worker's settings; nothing comes from the environment but what no run depends on."""
    return Settings.load(
        env_file=None,
        home=Path("/nonexistent"),
        broker_url="redis://nowhere",
        lease_seconds=45.0,
        renew_seconds=10.0,
        reconcile_seconds=BEAT_SECONDS,
        max_crashes=3,
        chunk_lines=scenario.newer_chunk_lines if newer else scenario.chunk_lines,
        plan_window_lines=scenario.window_lines,
        default_model=MODEL,
        max_num_seqs=4,
    )


@contextmanager
def slow_polls() -> Iterator[None]:
    """A poll of the engine may last a second: fewer steps, the same order of events."""
    with patch.object(worker.run.drain, "POLL_SECONDS", 1.0):
        yield
