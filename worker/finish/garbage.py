"""Deletes what is no longer needed, of jobs that ended a day ago and never of live ones."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice

import structlog

from storage.errors import StorageError
from storage.jobs import garbage
from storage.objects import object_keys
from storage.objects.base import ObjectInfo
from storage.registry import files
from worker.context import WorkerContext

log = structlog.get_logger(__name__)

KEEP_SECONDS = 24 * 3600.0
PAGE_KEYS = 200


def collect_garbage(worker: WorkerContext) -> None:
    """Delete the parts and plans of jobs that ended a day ago, and files past their time.

    Also results and uploads that no row names: those of finalizers that lost their lease, and of
    uploads that broke off. What cannot be deleted is logged, does not stop the rest, and is tried
    again the next time.

    Raises:
        StorageError: the database or the whole store is away.
    """
    _collect_jobs(worker)
    _expire_files(worker)
    before = time.time() - KEEP_SECONDS
    old = (found for found in worker.store.list(object_keys.UPLOADS) if found.modified < before)
    for key in _unreferenced(worker, old):
        with _skipping("upload_not_collected", key):
            worker.store.delete(key)
            log.info("upload_collected", key=key)
    worker.store.sweep(KEEP_SECONDS)


def _collect_jobs(worker: WorkerContext) -> None:
    after = ""
    while job_ids := garbage.collectable_jobs(
        worker.database, older_than=KEEP_SECONDS, after=after
    ):
        after = job_ids[-1]
        for job_id in job_ids:
            with _skipping("job_not_collected", job_id):
                _collect_job(worker, job_id)


def _collect_job(worker: WorkerContext, job_id: str) -> None:
    for prefix in (object_keys.plans(job_id), object_keys.parts(job_id)):
        for found in worker.store.list(prefix):
            worker.store.delete(found.key)
    for key in _unreferenced(worker, worker.store.list(object_keys.results(job_id))):
        worker.store.delete(key)
    garbage.mark_collected(worker.database, job_id)
    log.info("job_collected", job=job_id)


def _expire_files(worker: WorkerContext) -> None:
    after = ""
    while overdue := files.overdue(worker.database, after=after):
        after = overdue[-1].id
        for file in overdue:
            with _skipping("file_not_expired", file.id):
                if not files.unread(worker.database, file.id):
                    continue
                worker.store.delete(file.object_key)
                files.mark_expired(worker.database, file.id)
                log.info("file_expired", file=file.id)


def _unreferenced(worker: WorkerContext, found: Iterable[ObjectInfo]) -> Iterator[str]:
    objects = iter(found)
    while page := [each.key for each in islice(objects, PAGE_KEYS)]:
        yield from sorted(garbage.unreferenced(worker.database, page))


@contextmanager
def _skipping(event: str, item: str) -> Iterator[None]:
    """Go on after an error that concerns this item alone."""
    try:
        yield
    except StorageError as error:
        if error.retryable:
            raise
        log.warning(event, id=item, reason=str(error))
