"""The invariants of the rows, checked after every transaction that wrote something.

It reads with a connection of its own and knows nothing of the product's code but the states' names.
Row by row it judges the step from what was there before, and by whom it was taken; then each job as
a whole.
"""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from simulation.virtual.scheduler import Process, Scheduler

Row = dict[str, Any]
Fail = Callable[[str, str], None]

DEAD_CHUNKS = frozenset({"done", "split", "cancelled"})
ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
NEXT = {
    "validating": {"running", "finalizing", "failed", "completed"},
    "running": {"finalizing"},
    "finalizing": ENDED,
}
BLINK = 0.01  # seconds; SQLite's Julian days are exact to some microseconds


@dataclass
class Held:
    """A lease as the checker saw it: the process that claimed it, and when it was last renewed."""

    process: Process
    number: int
    renewed: float


@dataclass
class Rows:
    """What the rows were after the last step, and who holds what.

    ``ended`` and ``done`` are called for each job that became terminal and each chunk that was
    committed, once all rows of the step are judged; ``taken_over`` for who has lost a lease.
    ``beside`` judges the other tables, and says whether they hold anything new to do.
    """

    connection: sqlite3.Connection
    scheduler: Scheduler
    lease_seconds: float
    fail: Fail
    done: Callable[[Row], None]
    ended: Callable[[Row], None]
    taken_over: Callable[[Process], None]
    beside: Callable[[str], bool]
    chunks: dict[str, Row] = field(default_factory=dict)
    jobs: dict[str, Row] = field(default_factory=dict)
    version: int = 0
    _held: dict[str, Held] = field(default_factory=dict)

    def due(self, after: float) -> bool:
        """Whether the time of anything in the rows has come since then."""
        times = [c["lease_exp"] or c["not_before"] for c in self.chunks.values()]
        for job in self.jobs.values():
            times += (job["lease_exp"] or 0.0, job["expires_at"])
        return any(after - 1.0 <= time <= self.scheduler.now for time in times)

    def step(self, what: str) -> None:
        """Judge what the transaction ``what`` changed."""
        jobs, chunks = self._read("job"), self._read("chunk")
        new_jobs = [job for key, job in jobs.items() if self.jobs.get(key) != job]
        new_chunks = [chunk for key, chunk in chunks.items() if self.chunks.get(key) != chunk]
        before_jobs, before_chunks = self.jobs, self.chunks
        for chunk in new_chunks:
            self._chunk(before_chunks.get(chunk["id"]), chunk, jobs[chunk["job_id"]], what)
        for job in new_jobs:
            self._job(before_jobs.get(job["id"]), job, what)
        if before_chunks.keys() - chunks.keys() or before_jobs.keys() - jobs.keys():
            self.fail("I7", f"{what} removed a row")
        self.jobs, self.chunks = jobs, chunks
        if any(_tells(before_chunks.get(row["id"]), row) for row in new_chunks) or any(
            _tells(before_jobs.get(row["id"]), row) for row in new_jobs
        ):
            self.version += 1
        if self.beside(what):
            self.version += 1
        for job_id in sorted({c["job_id"] for c in new_chunks} | {j["id"] for j in new_jobs}):
            self._whole(jobs[job_id])
        for chunk in new_chunks:
            if chunk["state"] == "done":
                self.done(chunk)
        for job in new_jobs:
            if job["state"] in ENDED and before_jobs[job["id"]]["state"] not in ENDED:
                self.ended(job)

    def of_job(self, job_id: str) -> list[Row]:
        """A job's chunks, by their first position; those that were split are left out."""
        own = [c for c in self.chunks.values() if c["job_id"] == job_id and c["state"] != "split"]
        return sorted(own, key=lambda chunk: int(chunk["a"]))

    def _read(self, table: str) -> dict[str, Row]:
        cursor = self.connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        rows = (dict(zip(names, values, strict=True)) for values in cursor)
        return {row["id"]: row for row in rows}

    @property
    def _actor(self) -> Process:
        return self.scheduler.task.process

    def _chunk(self, old: Row | None, new: Row, job: Row, what: str) -> None:
        name = f"chunk [{new['a']}, {new['b']}) of {job['id']}"
        if old is None:
            # Halves of a split chunk can be cancelled in the transaction that makes them.
            born = "cancelled" if job["cancel"] else "pending"
            if new["state"] not in ("pending", born) or new["attempt"] != 0:
                self.fail("I2", f"{what} made {name} as {new['state']}")
            return
        if old["state"] in DEAD_CHUNKS:
            self.fail("I3", f"{what} changed {name}, which was {old['state']}: {_diff(old, new)}")
        elif new["attempt"] < old["attempt"]:
            self.fail("I2", f"{what} lowered the attempt of {name}")
        elif old["state"] == "pending":
            self._from_pending(old, new, job, f"{what} of {name}")
        else:
            self._from_leased(old, new, job, f"{what} of {name}")

    def _from_pending(self, old: Row, new: Row, job: Row, what: str) -> None:
        if new["state"] == "leased":
            self._claimed(old, new, job, what)
        elif new["state"] == "cancelled":
            if not job["cancel"]:
                self.fail("I5", f"{what}: nobody asked the job to stop")
        elif new["state"] != "pending":
            self.fail("I2", f"{what}: from pending to {new['state']}")

    def _claimed(self, old: Row, new: Row, job: Row, what: str) -> None:
        if new["attempt"] != old["attempt"] + 1:
            self.fail("I2", f"{what}: the attempt did not grow by one")
        if job["state"] != "running" or job["cancel"] or job["paused_at"]:
            self.fail(
                "claim",
                f"{what}: the job is {job['state']}, cancel={job['cancel']}, "
                f"paused_at={job['paused_at']}",
            )
        if old["not_before"] > self.scheduler.now + BLINK:
            self.fail("claim", f"{what}: it was to rest until {old['not_before']}")
        self._hold(new["id"], new["attempt"])

    def _hold(self, key: str, number: int) -> None:
        before = self._held.get(key)
        self._held[key] = Held(self._actor, number, self.scheduler.now)
        if before is not None and before.process is not self._actor:
            self.taken_over(before.process)

    def _from_leased(self, old: Row, new: Row, job: Row, what: str) -> None:
        held = self._held[new["id"]]
        mine = held.process is self._actor
        if new["attempt"] != old["attempt"]:
            self.fail("I2", f"{what}: attempt {new['attempt']} began while another was live")
        elif new["state"] == "leased":
            if not mine:
                self.fail("I2", f"{what}: {self._actor.name} renewed a lease that is not its own")
            held.renewed = self.scheduler.now
        elif new["state"] == "done":
            if not mine:
                self.fail("I2", f"{what}: {self._actor.name} committed for {_name(held)}")
        elif new["state"] == "cancelled" and not job["cancel"]:
            self.fail("I5", f"{what}: nobody asked the job to stop")
        elif not mine and "reclaim_embedded" not in what:
            since = self.scheduler.now - held.renewed
            if since < self.lease_seconds - BLINK:
                self.fail("I2", f"{what}: taken {since:.2f} s after {_name(held)} had renewed it")

    def _job(self, old: Row | None, new: Row, what: str) -> None:
        name = new["id"]
        if old is None:
            if new["state"] != "validating":
                self.fail("I5", f"{what} made {name} as {new['state']}")
            return
        before, after = old["state"], new["state"]
        if before in ENDED:
            changes = {key for key in new if new[key] != old[key]} - {"collected_at"}
            if changes:
                self.fail("I6", f"{what} changed {name}, which had ended: {_diff(old, new)}")
            return
        for kind in ("plan_epoch", "fin_epoch"):
            if new[kind] < old[kind]:
                self.fail("I2", f"{what} lowered the {kind} of {name}")
            if new[kind] > old[kind]:
                self._hold(f"{name} {kind}", new[kind])
        if after != before:
            self._moved(new, before, after, what)

    def _moved(self, job: Row, before: str, after: str, what: str) -> None:
        name = job["id"]
        if after not in NEXT[before]:
            self.fail("I6", f"{what} took {name} from {before} to {after}")
        kind = "plan_epoch" if before == "validating" else "fin_epoch"
        if before == "running":
            return
        if before == "validating" and after in ("running", "completed"):
            wanted = "completed" if estimated(job) else "running"
            if after != wanted:
                self.fail("estimate", f"{what} took {name} to {after}, not to {wanted}")
        if before == "validating" and after == "finalizing":
            if not job["cancel"]:
                self.fail("I5", f"{what}: {name} is not planned, and nobody asked it to stop")
            return
        held = self._held.get(f"{name} {kind}")
        if held is None or held.process is not self._actor or held.number != job[kind]:
            self.fail("I2", f"{what}: {self._actor.name} ended a step of {name} without its lease")

    def _whole(self, job: Row) -> None:
        at = 0
        chunks = self.of_job(job["id"])
        for chunk in chunks:
            if chunk["a"] != at:
                ranges = [(c["a"], c["b"], c["state"]) for c in chunks]
                self.fail("I1", f"the chunks of {job['id']} do not partition its lines: {ranges}")
                return
            at = chunk["b"]
        planned = job["in_progress_at"] is not None or bool(chunks)
        if planned and at != job["n_lines"]:
            self.fail("I1", f"the chunks of {job['id']} end at {at} of {job['n_lines']}")
        if job["state"] == "finalizing" or (job["state"] in ENDED and job["state"] != "failed"):
            live = [c for c in chunks if c["state"] not in DEAD_CHUNKS]
            if live:
                self.fail("I5", f"{job['id']} is {job['state']} and has live chunks")


def estimated(job: Row) -> bool:
    """Whether a job asks for its estimate alone."""
    return bool(json.loads(job["options"]).get("estimate"))


def _tells(old: Row | None, new: Row) -> bool:
    """Whether there may be something to do that was not there before; renewals are no news."""
    return old is None or any(
        old.get(name) != new.get(name) for name in ("state", "cancel", "paused_at")
    )


def _name(held: Held) -> str:
    return f"{held.process.name} (attempt {held.number})"


def _diff(old: Row, new: Row) -> str:
    changed = (key for key in new if new[key] != old[key])
    return ", ".join(f"{key}: {old[key]!r} -> {new[key]!r}" for key in changed)
