"""A deterministic simulation of the service: production code, virtual time, seeded faults.

One seed is one run. A world draws a scenario and its faults from the seed, lets clients and workers
work on it until every job has ended, and notes what went wrong, if anything did. The same seed
gives the same trace, line for line, on every machine.

**Which code runs.** The product's own, unchanged, from SQL to worker: `storage` whole (statements,
transactions, retries of lost commits, migrations for the schema); `worker`'s planner, drain loop,
lease keeper, part writer, poison burial, finalizer with its merge, reconciler tick and garbage
collection. Stand-ins are: the engine and the tokenizer (`virtual.echo`), the object store,
which keeps the contract of `storage.objects.base` in memory (`virtual.store`), the broker
(`processes.Bus`), and the loops that call the worker's functions, which the product runs in threads
(`processes.Worker`). The REST layer and Celery are not here; tests/integration has them.

**Threads.** Each thread of each process is a greenlet (`virtual.scheduler`): a worker's chunk, job
and reconciler, the lease keepers that the product starts, and clients. `virtual.stdlib`
puts stand-ins for `time`, `threading`, `random`, `secrets` and the logs into the product's modules
for the time of a run, so that sleeping and waiting park the greenlet, and nothing tells real time.

**Where they switch.** Before and after every transaction (`virtual.database`) and every call of the
store (`virtual.store`), and wherever they wait. Each such point takes a random virtual time, and
the thread whose time comes first goes on: that is all there is to the choice of an interleaving. A
transaction is atomic, as it is under SQLite's write lock; PostgreSQL's finer interleavings are not
simulated.

**The clock.** SQLite's `julianday` is replaced on the connection by the scheduler's time, so the
product's SQL reads virtual time. Python's clocks are too, but a process that was frozen unnoticed
(a suspended virtual machine) has a monotonic clock that stood still: it believes in its leases.

**Faults** (`virtual.faults`, `virtual.points`). At each point the process may be killed (its
threads unwind, and nothing that they do has effects), frozen (often until just after somebody else
has taken over its lease), be slow, or fail: before the point without effect, after it with the
effect and the answer lost. A failed PUT may arrive a minute later. Engines die, wake-ups are lost
and doubled, workers are told to leave, all workers are killed at once (and the leases reclaimed as
at an embedded start), and everything may stand still for a day, with garbage collected in between.
Around the writes that end something faults are more likely.

**The checker** judges rows after each transaction that wrote (`rows`), and objects as they change
and when a chunk or a job ends (`results`). `outcome` lists the invariants.
"""

import random
from typing import Any

from simulation import scenario as scenarios
from simulation.clients import Client
from simulation.outcome import BEGIN, CRASH, Violation
from simulation.processes import BEAT_SECONDS, Bus, Look, Parts, Worker, settings
from simulation.results import Results
from simulation.rows import ENDED, Rows
from simulation.scenario import DAY
from simulation.shards import Shards
from simulation.virtual import faults as fault_kinds
from simulation.virtual.database import Memory
from simulation.virtual.points import Points
from simulation.virtual.scheduler import Process, Scheduler
from simulation.virtual.store import Store
from storage.errors import ObjectNotFound
from storage.jobs.reconcile import reclaim_embedded
from storage.registry.models import ensure_default
from worker.errors import BrokenPlan, BrokenResult
from worker.finish.garbage import collect_garbage

PATIENCE = 1_800.0  # virtual seconds after the last fault within which every job must end
LOOK_ANYWAY = 8 * BEAT_SECONDS
BROKEN = (BrokenPlan.code, BrokenResult.code, ObjectNotFound.code)


class World:
    """One run."""

    def __init__(self, seed: int, database: Memory) -> None:
        self.seed = seed
        self.violation: Violation | None = None
        self.scheduler = Scheduler(seed, BEGIN)
        rng = random.Random(seed ^ 0xFA17)
        self.scenario = scenarios.draw(rng)
        self.points = Points(self.scheduler, fault_kinds.draw(rng))
        self.store = Store(self.scheduler, self.points, lambda key, data: self._changed(key, data))
        configured = settings(self.scenario)
        self.rows = Rows(
            database.connection,
            self.scheduler,
            configured.worker.lease_seconds,
            self.fail,
            lambda chunk: self.results.done(chunk),
            lambda job: self.shards.ended(job, self.results.ended(job)),
            self._wake_zombie,
            lambda what: self.shards.step(what),
        )
        self.shards = Shards(self.rows, self.store)
        self.results = Results(self.rows, self.store, self.scheduler, self.fail)
        self.parts = Parts(
            self.scheduler,
            self.points,
            database,
            self.store,
            self.scenario,
            configured,
            Bus(self.scheduler, self.points),
            lambda error: self.fail(CRASH, f"{type(error).__name__}: {error}"),
            self._beat,
            self._news,
            lambda: self.rows.version,
        )
        self.workers: list[Worker] = []
        self.clients: list[Client] = []
        self._names = 0
        self._outage_ends = 0.0

    def _changed(self, key: str, data: bytes | None) -> None:
        self.results.changed(key, data)
        self.shards.changed(key, data)

    def fail(self, invariant: str, message: str) -> None:
        """Note that an invariant does not hold, and stop."""
        if self.violation is None:
            self.violation = Violation(invariant, message)
            self.scheduler.note(f"VIOLATION {invariant}: {message}")
        self.scheduler.halt()

    def heard(self, level: str, event: str, values: dict[str, Any]) -> None:
        """A log event of the product."""
        if level == "exception":
            self.fail(CRASH, f"{event}: {values['error']}")
        chunk = self.rows.chunks.get(str(values.get("chunk")))
        if event == "chunk_done" and chunk is not None:
            mine = chunk["state"] == "done" and chunk["attempt"] == values["attempt"]
            if not mine:
                self.fail("told", f"{values['chunk']} is said to be done, and is {chunk['state']}")
        job = self.rows.jobs.get(str(values.get("job")))
        broken = event in ("results_broken", "output_broken") or values.get("reason") in BROKEN
        if broken and job is not None and job["state"] not in ENDED:
            self.fail("I4", f"{event}: {values['reason']}")

    def run(self) -> None:
        """Play the scenario to its end."""
        scheduler, scenario = self.scheduler, self.scenario
        scheduler.died = self._restart
        self.points.lone = self._lone
        self.points.active = False
        boot = Process("boot", faulty=False)
        database = self.parts.database
        scheduler.spawn(boot, "main", lambda: ensure_default(database, "smollm2", "words"))
        scheduler.run(lambda: False, BEGIN + 1)
        self.points.active = True
        began = scheduler.now
        for _ in range(scenario.workers):
            self._add_worker()
        for batch in scenario.batches:
            client = Client(self.parts, self.results, batch, began)
            self.clients.append(client)
            scheduler.spawn(client.process, "main", client.run)
        quiet = scenario.faults_end
        if scenario.power_cut is not None:
            scheduler.at(began + scenario.power_cut, self._power_cut)
        if scenario.leaves is not None:
            scheduler.at(began + scenario.leaves, self._leave)
        if scenario.outage is not None:
            scheduler.at(began + scenario.outage, self._outage)
            quiet += 1.1 * DAY
        scheduler.at(began + quiet, self._calm)
        scheduler.run(self._ended, began + quiet + PATIENCE)
        if self.violation is None and not self._ended():
            states = {job["id"]: job["state"] for job in self.rows.jobs.values()}
            self.fail("I8", f"not every job has ended: {states}")
        self._afterwards()

    def _afterwards(self) -> None:
        """Zombies wake up; a day later garbage is collected, and what was published is kept."""
        scheduler = self.scheduler
        self._calm()
        thaw = max((worker.process.frozen_until for worker in self.workers), default=0.0)
        if thaw > scheduler.now:
            scheduler.run(lambda: False, thaw + 60.0)
        scheduler.died = lambda process: None
        for worker in self.workers:
            scheduler.kill(worker.process)
        scheduler.run(lambda: False, scheduler.now + 100.0)
        scheduler.now += 1.1 * DAY
        janitor = Worker(self.parts, "janitor")
        task = scheduler.spawn(janitor.process, "main", lambda: collect_garbage(janitor.context))
        scheduler.run(lambda: task.done, scheduler.now + DAY)
        if self.violation is None:
            self.results.finish()
            self.shards.finish()

    def _beat(self) -> float:
        idle = self._ended()
        return (60.0 if idle else BEAT_SECONDS) * self.scheduler.random.uniform(0.7, 1.3)

    def _news(self, last: Look | None) -> bool:
        """Whether a look at the rows may find something new; once in a while it is taken anyway."""
        return (
            last is None
            or last.version != self.rows.version
            or self.scheduler.now - last.time > LOOK_ANYWAY
            or self.rows.due(last.time)
            or self.shards.due(last.time)
        )

    def _ended(self) -> bool:
        finished = all(client.finished for client in self.clients) and bool(self.clients)
        return finished and self.shards.all_closed

    def _calm(self) -> None:
        self.points.active = False

    def _add_worker(self) -> None:
        if self.scheduler.now < self._outage_ends:
            self.scheduler.at(self._outage_ends, self._add_worker)
            return
        self._names += 1
        worker = Worker(self.parts, f"w{self._names}")
        self.workers.append(worker)
        self.parts.wakeups.listeners.append(worker.hear)
        worker.start()

    def _restart(self, process: Process) -> None:
        self._forget(process)
        self.scheduler.at(
            self.scheduler.now + self.scheduler.random.uniform(0.5, 20.0), self._add_worker
        )

    def _forget(self, process: Process) -> None:
        gone = [worker for worker in self.workers if worker.process is process]
        self.workers = [worker for worker in self.workers if worker.process is not process]
        listeners = self.parts.wakeups.listeners
        for worker in gone:
            listeners.remove(worker.hear)

    def _power_cut(self) -> None:
        """Every worker dies at once; the one that comes first takes all leases back."""
        count = len(self.workers)
        scheduler = self.scheduler
        scheduler.note("power cut")
        scheduler.died = self._forget
        for worker in list(self.workers):
            scheduler.kill(worker.process)
        scheduler.died = self._restart

        def start() -> None:
            boot = Process("boot", faulty=False)
            database = self.parts.database
            was, self.points.active = self.points.active, False
            scheduler.spawn(boot, "reclaim", lambda: reclaim_embedded(database))

            def go() -> None:
                self.points.active = was
                for _ in range(count):
                    self._add_worker()

            scheduler.at(scheduler.now + 1.0, go)

        scheduler.at(scheduler.now + scheduler.random.uniform(1.0, 20.0), start)

    def _lone(self) -> bool:
        awake = [w for w in self.workers if w.process.frozen_until <= self.scheduler.now]
        return len(awake) < 2

    def _wake_zombie(self, process: Process) -> None:
        """Who has just lost its lease wakes up soon, while the next holder is at work."""
        left = process.frozen_until - self.scheduler.now
        if 0 < left < DAY / 2:
            self.scheduler.thaw(process, self.scheduler.random.choice((0.05, 3.0, 15.0, 40.0)))

    def _leave(self) -> None:
        """SIGTERM to one worker; another is started in its place."""
        if not self.workers:
            return
        worker = self.workers[0]
        self.scheduler.note(f"{worker.name} is told to leave")
        worker.context.leaving.set()
        later = self.scheduler.now + 20.0
        self.scheduler.at(later, worker.context.stopping.set)
        self._restart(worker.process)

    def _outage(self) -> None:
        """Everything stands still for more than a day."""
        self.scheduler.note("outage")
        self._outage_ends = self.scheduler.now + 1.05 * DAY
        for process in [w.process for w in self.workers] + [c.process for c in self.clients]:
            unnoticed = self.points.dice(self.points.faults.blind)
            self.scheduler.freeze(process, 1.05 * DAY, unnoticed=unnoticed)
