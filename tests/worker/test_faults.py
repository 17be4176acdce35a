"""Faults of the storage: the work waits for better times, and no line is blamed for them."""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from storage.database.states import ChunkState, JobState
from storage.errors import ConfigurationError, ObjectStoreError, OutOfSpace, StorageError
from storage.objects import object_keys
from storage.registry import files
from storage.registry.files import NewFile
from worker.finish.garbage import collect_garbage
from worker.run.drain import drain
from worker.run.response_spool import ResponseSpool

Line = Callable[..., dict[str, Any]]


class _Refusing:
    """A store whose calls for keys that begin with ``prefix`` fail until it is mended."""

    def __init__(self, store: Any, prefix: str, error: StorageError) -> None:
        self._store = store
        self.prefix: str | None = prefix
        self._error = error

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)

        def guarded(key: Any = "", *args: Any, **options: Any) -> Any:
            if self.prefix is not None and str(key).startswith(self.prefix):
                raise self._error
            return call(key, *args, **options) if key != "" else call(*args, **options)

        return guarded


def _refuse(bench: Any, prefix: str, error: StorageError) -> _Refusing:
    store = _Refusing(bench.worker.store, prefix, error)
    object.__setattr__(bench.worker, "store", store)
    return store


def _planned(bench: Any, line: Line) -> str:
    job_id: str = bench.create([line(f"row{i}", [i + 2]) for i in range(9)])
    bench.plan(job_id)
    return job_id


@pytest.mark.parametrize("prefix", ["plans/", "parts/", "results/"])
@pytest.mark.parametrize("error", [ConfigurationError("403"), ObjectStoreError("EACCES")])
def test_a_store_that_refuses_costs_no_line_and_no_job(
    bench: Any, line: Line, prefix: str, error: StorageError
) -> None:
    job_id = _planned(bench, line)
    store = _refuse(bench, prefix, error)
    for _ in range(8):
        bench.run_due()
        bench.sql("UPDATE job SET lease_exp = 0 WHERE lease_exp IS NOT NULL")
    (chunk,) = bench.chunks(job_id)
    assert chunk.crashes == 0
    store.prefix = None
    job = bench.finish(job_id)
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 9, 0)


def test_a_chunk_rests_after_a_fault_of_the_store(bench: Any, line: Line) -> None:
    job_id = _planned(bench, line)
    _refuse(bench, "parts/", ConfigurationError("403"))
    assert drain(bench.worker, "smollm2") == 0
    (chunk,) = bench.chunks(job_id)
    assert (chunk.state, chunk.attempt) == (ChunkState.PENDING, 1)
    assert drain(bench.worker, "smollm2") == 0
    assert bench.chunks(job_id)[0].attempt == 1, "it is not claimed again at once"


def test_a_full_disk_is_no_crash(bench: Any, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = _planned(bench, line)

    def full(*_: Any) -> None:
        raise OutOfSpace

    with monkeypatch.context() as patch:
        patch.setattr(ResponseSpool, "add", full)
        assert drain(bench.worker, "smollm2") == 0
    (chunk,) = bench.chunks(job_id)
    assert (chunk.state, chunk.crashes) == (ChunkState.PENDING, 0)
    assert bench.finish(job_id).n_ok == 9


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, OutOfSpace), (errno.EIO, StorageError)]
)
def test_responses_that_cannot_be_written_are_a_fault_of_the_storage(
    monkeypatch: pytest.MonkeyPatch, number: int, error: type[StorageError]
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(number, "no")

    spool = ResponseSpool()
    with monkeypatch.context() as patch:
        patch.setattr(spool._file, "write", fail)
        with pytest.raises(StorageError) as caught:
            spool.add((0, 0), {"a": 1})
    assert type(caught.value) is error
    with monkeypatch.context() as patch:
        patch.setattr(spool._file, "close", fail)
        spool.close()
    spool.close()


@pytest.mark.parametrize(
    ("error", "crashes"), [(SystemExit(1), 0), (KeyboardInterrupt(), 0), (RuntimeError("?"), 1)]
)
def test_an_order_to_exit_is_no_crash_and_a_surprise_is_one(
    bench: Any, line: Line, error: BaseException, crashes: int
) -> None:
    job_id = _planned(bench, line)

    def surprise(engine: Any) -> None:
        raise error

    bench.lab.before_poll = surprise
    with pytest.raises(type(error)):
        drain(bench.worker, "smollm2")
    (chunk,) = bench.chunks(job_id)
    assert (chunk.state, chunk.crashes) == (ChunkState.PENDING, crashes)


def test_what_cannot_be_deleted_holds_nothing_back_and_is_tried_again(
    bench: Any, line: Line
) -> None:
    jobs = sorted(bench.finish(bench.create([line("a")])).id for _ in range(2))
    bench.sql("UPDATE job SET completed_at = 1")
    database, store = bench.worker.database, bench.worker.store
    for file_id in ("file_1", "file_2"):
        store.put(f"old/{file_id}", b"x")
        new = NewFile(file_id, "default", "batch", "f", 1, f"old/{file_id}", "", "", 0.0)
        files.insert(database, new)
    refusing = _refuse(bench, "old/file_1", ObjectStoreError("EACCES"))
    refusing_parts = _refuse(bench, f"parts/{jobs[0]}", ObjectStoreError("EACCES"))
    collect_garbage(bench.worker)
    assert [info.key for info in store.list("old/")] == ["old/file_1"]
    assert [file.id for file in files.overdue(database)] == ["file_1"]
    assert [key.key.split("/")[1] for key in store.list("parts/")] == [jobs[0]]
    refusing.prefix = refusing_parts.prefix = None
    collect_garbage(bench.worker)
    assert list(store.list("old/")) + list(store.list("parts/")) == []


def test_what_no_row_names_goes_after_a_day_and_results_stay(
    bench: Any, line: Line, tmp_path: Path
) -> None:
    job = bench.finish(bench.create([line("a")]))
    live = bench.create([line("b")])
    bench.sql("UPDATE job SET completed_at = 1 WHERE completed_at IS NOT NULL")
    store = bench.worker.store
    store.put(object_keys.result(job.id, 99, "output"), b"of a finalizer that lost its epoch")
    store.put(object_keys.result(live, 1, "output"), b"of a job that is not done")
    for file_id in ("file_broken_off", "file_just_now"):
        store.put(object_keys.upload("default", file_id), b"without a row")
    day_ago = time.time() - 25 * 3600
    for path in (tmp_path / "objects" / "files").rglob("*"):
        if path.name != "file_just_now":
            os.utime(path, (day_ago, day_ago))
    before = {info.key for info in store.list("files/")}
    collect_garbage(bench.worker)
    assert before - {info.key for info in store.list("files/")} == {
        object_keys.upload("default", "file_broken_off")
    }
    left = {info.key for info in store.list("results/")}
    assert left == {job.out_key, object_keys.result(live, 1, "output")}


def test_planning_waits_for_a_store_that_refuses(bench: Any, line: Line) -> None:
    job_id = bench.create([line("a")])
    store = _refuse(bench, "files/", ConfigurationError("403"))
    for _ in range(8):
        bench.run_due()
        bench.sql("UPDATE job SET lease_exp = 0 WHERE lease_exp IS NOT NULL")
    assert bench.job(job_id).state == JobState.VALIDATING
    store.prefix = None
    assert bench.finish(job_id).n_ok == 1
