"""Clients: they upload, create batches, look at them, and cancel, pause, resume and retry them."""

from collections.abc import Callable
from typing import Any, TypeVar

from simulation.processes import Parts
from simulation.results import Results
from simulation.rows import ENDED
from simulation.scenario import ENDPOINT, Batch, Line
from simulation.virtual.places import PLACES
from simulation.virtual.scheduler import Process
from storage.database.tables import File
from storage.errors import NothingToRetry, StateConflict, StorageError
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.jobs.retries import retry_source
from storage.objects import object_keys
from storage.registry import files
from storage.registry.files import NewFile
from storage.wakeups import Wakeup

T = TypeVar("T")

TENANT = "acme"
LOOK_SECONDS = 40.0
OPTIONS = {"on_invalid": "skip"}


def options_of(batch: Batch) -> dict[str, Any]:
    """The options of a batch: whether it is only estimated, or written to a place of the client's
    as well."""
    if batch.estimated:
        return {**OPTIONS, "estimate": True}
    if not batch.written:
        return OPTIONS
    uri = f"{PLACES}{batch.name}/"
    return {**OPTIONS, "output": {"uri": uri, "format": "jsonl", "passthrough": []}}


class Client:
    """Sees one batch through. What fails it tries again, as a client of the service would."""

    def __init__(self, parts: Parts, results: Results, batch: Batch, began: float) -> None:
        self.parts = parts
        self.results = results
        self.batch = batch
        self.began = began
        self.process = Process(f"client-{batch.name}", faulty=False)
        self.finished = False

    def run(self) -> None:
        """From the upload to the end of the batch, and of the retry if there is one."""
        batch = self.batch
        self._until(batch.created)
        if self.parts.scheduler.random.random() < 0.1:
            self._again(self._upload)  # and forget it: nobody will ever refer to this one
        file = self._again(self._upload)
        job_id = self._create(file, batch.lines, batch.name, retry_of=None)
        orders = [
            (batch.paused, jobs.pause),
            (batch.paused and batch.resumed, jobs.resume),
            (batch.cancelled, jobs.request_stop),
        ]
        for time, order in sorted((o for o in orders if o[0] is not None), key=lambda o: o[0] or 0):
            self._until(time or 0)
            self._order(order, job_id)
        self._watch(job_id)
        if batch.retried:
            self._retry(job_id)
        self.finished = True

    def _retry(self, job_id: str) -> None:
        database = self.parts.database
        try:
            source = self._again(lambda: retry_source(database, TENANT, job_id))
        except (NothingToRetry, StateConflict):
            return
        data = self.parts.store.objects[source.error_file.object_key][0]
        failed = [
            line for line in self.batch.lines if f'"custom_id":"{line.custom_id}"' in data.decode()
        ]
        name = f"{self.batch.name}-again"
        self._watch(self._create(source.input_file, tuple(failed), name, retry_of=job_id))

    def _upload(self) -> File:
        parts, data = self.parts, self.batch.data
        file_id = new_id("file")
        key = object_keys.upload(TENANT, file_id)
        info = parts.store.put(key, data)
        new = NewFile(
            file_id, TENANT, "batch", "in.jsonl", len(data), key, info.etag, info.sha256 or ""
        )
        return files.insert(parts.database, new)

    def _create(
        self, file: File, lines: tuple[Line, ...], key: str, *, retry_of: str | None
    ) -> str:
        new = NewJob(
            TENANT,
            ENDPOINT,
            "24h",
            self.batch.window,
            file,
            options=OPTIONS if retry_of else options_of(self.batch),
            priority=self.batch.priority,
            idem_key=key,
            idem_hash=key,
            retry_of=retry_of,
        )
        # Before the call: the batch may have run to its end when the answer comes.
        self.results.inputs[key] = lines
        job = self._again(lambda: jobs.create_job(self.parts.database, new)).job
        self.results.created.append(job.id)
        self.parts.wakeups.send(Wakeup.plan(job.id))
        return job.id

    def _order(self, order: Callable[..., object], job_id: str) -> None:
        try:
            self._again(lambda: order(self.parts.database, TENANT, job_id))
        except StateConflict:
            return
        self.parts.wakeups.send(Wakeup.reconcile())

    def _watch(self, job_id: str) -> None:
        database, fail = self.parts.database, self.results.fail
        while True:
            view = self._again(lambda: jobs.view(database, TENANT, job_id))
            told = view.progress.done + view.progress.n_cancelled
            if told > (view.job.n_lines or 0):
                fail("I5", f"{job_id} shows {told} lines of {view.job.n_lines}")
            if view.job.state in ENDED:
                return
            self.parts.scheduler.sleep(LOOK_SECONDS)

    def _until(self, time: float) -> None:
        self.parts.scheduler.park(self.began + time)

    def _again(self, call: Callable[[], T]) -> T:
        while True:
            try:
                return call()
            except StorageError as error:
                if not error.retryable:
                    raise
                self.parts.scheduler.sleep(1.0)
