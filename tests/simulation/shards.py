"""The invariants of results in a client's place: of the rows, the shards and the manifests."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import orjson

from simulation.rows import DEAD_CHUNKS, ENDED, Row, Rows
from simulation.virtual.places import PLACES
from simulation.virtual.scheduler import Process
from simulation.virtual.store import Store

MANIFEST = "manifest.json"


@dataclass
class Shards:
    """What the rows and the places were after the last step."""

    rows: Rows
    store: Store
    outputs: dict[str, Row] = field(default_factory=dict)
    shards: dict[tuple[str, int], Row] = field(default_factory=dict)
    _parts: dict[str, str] = field(default_factory=dict)
    _holders: dict[str, Process] = field(default_factory=dict)

    @property
    def all_closed(self) -> bool:
        """Whether nothing more is to be written."""
        return all(output["state"] != "open" for output in self.outputs.values())

    def due(self, after: float) -> bool:
        """Whether the time of an output has come since then."""
        now = self.rows.scheduler.now
        times = [row["lease_exp"] or 0.0 for row in self.outputs.values() if row["state"] == "open"]
        return any(after - 1.0 <= time <= now for time in times)

    # What the rows tell

    def step(self, what: str) -> bool:
        """Judge what a transaction changed; whether there may be something new to do."""
        outputs = {row["job_id"]: row for row in self._read("output")}
        shards = {(row["job_id"], row["number"]): row for row in self._read("shard")}
        news = len(outputs) != len(self.outputs)
        for job_id, output in outputs.items():
            old = self.outputs.get(job_id)
            if old is not None and output["epoch"] < old["epoch"]:
                self._fail("O2", f"{what} lowered the epoch of the output of {job_id}")
            if old is not None and output["epoch"] > old["epoch"]:
                self._held(job_id)
            if old is not None and old["state"] != "open" and old != output:
                self._fail("O2", f"{what} changed an output of {job_id} that was {old['state']}")
        for key, shard in shards.items():
            old = self.shards.get(key)
            if old is None or old == shard:
                continue
            news = True
            if old["state"] != "waiting":
                self._fail("O1", f"{what} changed shard {key}, which was {old['state']}")
            elif shard["state"] == "written":
                self._written(shard, outputs[shard["job_id"]], shards, what)
        self.outputs, self.shards = outputs, shards
        return news

    def _held(self, job_id: str) -> None:
        actor = self.rows.scheduler.task.process
        before = self._holders.get(job_id)
        self._holders[job_id] = actor
        if before is not None and before is not actor:
            self.rows.taken_over(before)

    def _written(
        self, shard: Row, output: Row, shards: dict[tuple[str, int], Row], what: str
    ) -> None:
        name = f"shard {shard['number']} of {shard['job_id']}"
        actor = self.rows.scheduler.task.process.name
        if output["lease_owner"] != actor:
            self._fail("O2", f"{what}: {actor} wrote {name} for {output['lease_owner']}")
        for chunk in self.rows.of_job(shard["job_id"]):
            apart = (
                chunk["last_line"] < shard["first_line"] or shard["last_line"] < chunk["first_line"]
            )
            if not apart and chunk["state"] not in DEAD_CHUNKS:
                self._fail("O2", f"{what}: {name} was written, and a chunk is {chunk['state']}")
        for (job_id, number), other in shards.items():
            before = job_id == shard["job_id"] and number < shard["number"]
            if before and other["state"] == "waiting":
                self._fail("O2", f"{what}: {name} was written before shard {number}")
        data = self._data(self._folder(output) + shard["file"])
        if data is None or _sha256(data) != shard["sha256"]:
            self._fail("O1", f"{what}: {name} is not there as it is said to be")

    def ended(self, job: Row, results: list[dict[str, Any]]) -> None:
        """A job became terminal; ``results`` are the lines of its files, in the input's order."""
        own = [row for row in self._read("shard") if row["job_id"] == job["id"]]
        output = next((row for row in self._read("output") if row["job_id"] == job["id"]), None)
        if output is None or job["state"] == "failed" or job["in_progress_at"] is None:
            return
        codes = [error["code"] for error in orjson.loads(job["errors"] or "[]")]
        if output["state"] == "failed" and "output_not_written" in codes:
            return
        rows: list[dict[str, Any]] = []
        for shard in sorted(own, key=lambda row: int(row["number"])):
            if shard["state"] != "written":
                self._fail("O3", f"{job['id']} has ended, and a shard is {shard['state']}")
                return
            data = self._data(self._folder(output) + shard["file"]) or b""
            rows += [orjson.loads(line) for line in data.splitlines()]
        if [_said(row) for row in rows] != [_row_of(line) for line in results]:
            self._fail("O3", f"{job['id']} has other shards than results: {rows} {results}")

    # What the store tells

    def changed(self, key: str, data: bytes | None) -> None:
        """An object of a place was written."""
        if not key.startswith("places/") or data is None:
            return
        if "/part-" in key and self._parts.setdefault(key, _sha256(data)) != _sha256(data):
            self._fail("O1", f"{key} was written again, with other bytes")
        if key.endswith(MANIFEST):
            self._listed(key.removesuffix(MANIFEST), orjson.loads(data))

    def _listed(self, folder: str, manifest: dict[str, Any]) -> None:
        at = 0
        for number, entry in enumerate(manifest["shards"]):
            data = self._data(folder + (entry["file"] or ""))
            if data is None or (len(data), _sha256(data)) != (entry["bytes"], entry["sha256"]):
                self._fail("O1", f"{folder}{MANIFEST} lists what is not whole: {entry}")
                return
            if entry["file"] != f"part-{number:05}.jsonl" or entry["first_row"] != at + 1:
                self._fail("O1", f"{folder}{MANIFEST} has a gap before {entry}")
            at += len(data.splitlines())
        if manifest["rows"] != at:
            self._fail("O1", f"{folder}{MANIFEST} says {manifest['rows']} rows of {at}")

    def finish(self) -> None:
        """The manifests say how the jobs have ended."""
        for job_id, output in self.outputs.items():
            job = self.rows.jobs[job_id]
            if output["state"] != "closed" or job["state"] not in ENDED:
                continue
            folder = self._folder(output)
            manifest = orjson.loads(self._data(folder + MANIFEST) or b"{}")
            written = sum(
                shard["state"] == "written"
                for (owner, _), shard in self.shards.items()
                if owner == job_id
            )
            told = manifest.get("state"), len(manifest.get("shards", ()))
            if told != (job["state"], written):
                self._fail("O4", f"{job_id}, {job['state']} with {written} shards, is told {told}")
            success = self._data(folder + "_SUCCESS") is not None
            if success != (job["state"] == "completed"):
                self._fail("O4", f"{job_id} is {job['state']}, and _SUCCESS: {success}")

    def _fail(self, invariant: str, message: str) -> None:
        self.rows.fail(invariant, message)

    def _folder(self, output: Row) -> str:
        return f"places/{output['uri'].removeprefix(PLACES)}"

    def _data(self, key: str) -> bytes | None:
        found = self.store.objects.get(key)
        return found[0] if found else None

    def _read(self, table: str) -> list[Row]:
        cursor = self.rows.connection.execute(f"SELECT * FROM {table}")
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, values, strict=True)) for values in cursor]


def _said(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["custom_id"], row["answer"], row["error_code"]


def _row_of(line: dict[str, Any]) -> tuple[Any, ...]:
    body = (line["response"] or {}).get("body", {})
    error = line["error"] or body.get("error") or {"code": None}
    text = body["choices"][0]["text"] if "choices" in body else None
    return line["custom_id"], text, error["code"]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
