"""The invariants of the objects: parts, results, inputs; from their bytes alone."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from simulation.rows import ENDED, Fail, Row, Rows, estimated
from simulation.scenario import DAY, Line
from simulation.virtual.echo import echo
from simulation.virtual.scheduler import Scheduler
from simulation.virtual.store import Store
from worker.errors import BrokenPlan
from worker.plan.plan_file import PlanFile

ENDS = ("completed_at", "failed_at", "cancelled_at", "expired_at")


@dataclass
class Results:
    """What was committed and published so far.

    ``inputs`` are the lines that each job has to account for, in order, by its idempotency
    key; ``created`` are the ids of the jobs whose creation was answered.
    """

    rows: Rows
    store: Store
    scheduler: Scheduler
    fail: Fail
    inputs: dict[str, tuple[Line, ...]] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    _parts: dict[str, Row] = field(default_factory=dict)
    _published: dict[str, str] = field(default_factory=dict)

    # What the rows tell

    def done(self, chunk: Row) -> None:
        """A chunk was committed: its part is there, and holds its lines."""
        name = f"the part {chunk['part_key']} of [{chunk['a']}, {chunk['b']})"
        data = self._data(chunk["part_key"])
        if data is None:
            self.fail("I4", f"{name} is not there")
            return
        self._parts[chunk["part_key"]] = chunk
        if _sha256(data) != chunk["part_sha256"]:
            self.fail("I4", f"{name} does not have the committed hash")
            return
        records = [orjson.loads(line) for line in data.splitlines()]
        wanted = self._planned(chunk)
        if wanted is not None and [record["line"] for record in records] != wanted:
            self.fail("I4", f"{name} holds the lines {[r['line'] for r in records]} for {wanted}")
        ok = sum(record["ok"] for record in records)
        if (ok, len(records) - ok) != (chunk["n_ok"], chunk["n_err"]):
            self.fail("I5", f"{name} has {ok} answers; {chunk['n_ok']} were counted")

    def ended(self, job: Row) -> list[dict[str, Any]]:
        """A job became terminal: each line is in its results once, in order, and counted.

        Returns the lines of both files, in the input's order.
        """
        self._sums(job)
        if job["state"] == "failed":
            return []
        if job["state"] == "completed" and estimated(job):
            if job["out_key"] or job["err_key"] or self.rows.of_job(job["id"]):
                self.fail("estimate", f"{job['id']} has chunks or files")
            return []
        wanted = self.inputs[job["idem_key"]]
        place = {line.custom_id: index for index, line in enumerate(wanted)}
        found: list[int] = []
        in_order: list[tuple[int, dict[str, Any]]] = []
        for kind, count in (("out", job["n_ok"]), ("err", job["n_err"] + job["n_cancelled"])):
            lines = self._file(job, kind)
            if len(lines) != count:
                self.fail("I5", f"{job['id']}: {len(lines)} lines in {kind}, {count} counted")
            places = [place.get(line["custom_id"], -1) for line in lines]
            if places != sorted(places):
                self.fail("I5", f"{job['id']}: {kind} is not in the input's order: {places}")
            for line, at in zip(lines, places, strict=True):
                if at >= 0:
                    self._line(job, wanted[at], line, answered=kind == "out")
            found += places
            in_order += zip(places, lines, strict=True)
        if sorted(found) != list(range(len(wanted))):
            self.fail("I5", f"{job['id']}: the lines {sorted(found)} of {len(wanted)} came out")
        return [line for _, line in sorted(in_order, key=lambda each: each[0])]

    # What the store tells

    def changed(self, key: str, data: bytes | None) -> None:
        """An object was written, or deleted."""
        if key in self._published:
            self.fail("I6", f"{key} was published, and then {_verb(data)}")
        chunk = self._parts.get(key)
        if chunk is not None and data is not None and _sha256(data) != chunk["part_sha256"]:
            self.fail("I3", f"{key} was committed, and then {_verb(data)}")
        if data is None:
            self._deleted(key)

    def _deleted(self, key: str) -> None:
        kind, owner, *_ = key.split("/")
        if kind == "places":
            self.fail("O1", f"{key} was deleted")
        if kind in ("parts", "plans", "results"):
            job = self.rows.jobs.get(owner)
            if job is None or job["state"] not in ENDED:
                self.fail("I4", f"{key} was deleted while its job had not ended")
                return
            age = self.scheduler.now - next(job[name] for name in ENDS if job[name])
            if age < DAY - 1:
                self.fail("I4", f"{key} was deleted {age:.0f} s after its job's end")
        elif kind == "files":
            wanted = {job["input_key"] for job in self.rows.jobs.values()}
            if key in wanted:
                self.fail("I4", f"{key} is a job's input, and was deleted")

    # At the end

    def finish(self) -> None:
        """Everything that was published is there, unchanged; every created job has its row."""
        for key, sha256 in sorted(self._published.items()):
            data = self._data(key)
            if data is None or _sha256(data) != sha256:
                self.fail("I6", f"{key} was published and is not the same any more")
        for job_id in self.created:
            if job_id not in self.rows.jobs:
                self.fail("I7", f"{job_id} was created and is gone")

    def _data(self, key: str | None) -> bytes | None:
        found = self.store.objects.get(key or "")
        return found[0] if found else None

    def _planned(self, chunk: Row) -> list[int] | None:
        data = self._data(chunk["plan_key"])
        try:
            rows = PlanFile(data or b"").rows(chunk["a"], chunk["b"])
            return sorted(row.line for row in rows)
        except BrokenPlan:
            self.fail("I4", f"the plan {chunk['plan_key']} cannot be read")
            return None

    def _sums(self, job: Row) -> None:
        chunks = self.rows.of_job(job["id"])
        done = [chunk for chunk in chunks if chunk["state"] == "done"]
        gone = sum(c["b"] - c["a"] for c in chunks if c["state"] == "cancelled")
        for name in ("n_ok", "n_err", "prompt_tokens", "cached_tokens", "completion_tokens"):
            if job[name] != sum(chunk[name] for chunk in done):
                self.fail("I5", f"{job['id']}: {name} is not the sum over its chunks")
        if job["n_cancelled"] != gone:
            self.fail("I5", f"{job['id']}: {job['n_cancelled']} cancelled, of {gone}")

    def _file(self, job: Row, kind: str) -> list[dict[str, Any]]:
        key = job[f"{kind}_key"]
        if key is None:
            return []
        data = self._data(key)
        if data is None or _sha256(data) != job[f"{kind}_sha256"]:
            self.fail("I5", f"{job['id']}: {key} is not the file that was published")
            return []
        self._published[key] = _sha256(data)
        return [orjson.loads(line) for line in data.splitlines()]

    def _line(self, job: Row, line: Line, found: Mapping[str, Any], *, answered: bool) -> None:
        name = f"{job['id']}: line {line.custom_id}"
        if answered:
            texts = [choice["text"] for choice in found["response"]["body"]["choices"]]
            if not line.valid or line.poison or texts != [echo(each) for each in line.prompts]:
                self.fail("I5", f"{name} has the answers {texts!r}")
            return
        error = found["error"] or found["response"]["body"]["error"]
        code = str(error["code"])
        if code.startswith("batch_") and code != f"batch_{job['cancel']}":
            self.fail("I5", f"{name} is {code}, and the job was stopped as {job['cancel']}")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _verb(data: bytes | None) -> str:
    return "deleted" if data is None else "written again"
