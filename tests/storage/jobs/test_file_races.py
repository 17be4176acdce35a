"""Races for files: whoever creates a batch of one, and whoever takes it away, never both win."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from sqlalchemy import update
from sqlmodel import col

import racing
from moves import tick
from racing import Change, Race, won_and_lost
from storage.database.connection import Database
from storage.database.tables import File, Job
from storage.errors import FileInUse, InputGone, NotFound, RetrySourceGone
from storage.jobs import finalizing, jobs, planning
from storage.jobs.finalizing import Results
from storage.jobs.jobs import NewJob
from storage.jobs.planning import Plan
from storage.registry import files
from storage.registry.files import NewFile

MakeFile = Callable[..., NewFile]
Create = Callable[..., Job]


@pytest.fixture
def race(database_url: str) -> Race:
    return partial(racing.race, database_url)


@pytest.fixture
def ended(database: Database, new_job: Create, new_file: MakeFile) -> Job:
    """A batch that was cancelled before it was planned: all of its lines can be run again."""
    job = new_job()
    jobs.request_stop(database, "acme", job.id)
    tick(database)
    mine = finalizing.claim_finalize(database, "f", lease_seconds=45)
    assert mine is not None
    return finalizing.commit_final(database, job.id, 1, Results(0, 2, None, new_file()))


def create(file: File, retry_of: str | None = None, **options: Any) -> Change:
    new = NewJob("acme", "/v1/x", "24h", 60, file, retry_of=retry_of, **options)
    return partial(jobs.create_job, new=new)


def delete(file_id: str | None) -> Change:
    assert file_id is not None
    return partial(files.soft_delete, tenant_id="acme", file_id=file_id)


def expire(database: Database, file_id: str) -> None:
    with database.write() as session:
        session.execute(update(File).where(col(File.id) == file_id).values(expires_at=1.0))


def test_an_input_is_not_deleted_while_its_batch_is_created(
    database: Database, new_file: MakeFile, race: Race
) -> None:
    file = files.insert(database, new_file())
    created, late = race(create(file), delete(file.id))
    assert isinstance(late, FileInUse)
    assert late.job_id == created.job.id
    assert files.get(database, "acme", file.id).deleted_at is None


def test_no_batch_is_created_of_an_input_that_is_being_deleted(
    database: Database, new_file: MakeFile, race: Race
) -> None:
    file = files.insert(database, new_file())
    deleted, late = race(delete(file.id), create(file))
    assert deleted.id == file.id
    assert isinstance(late, InputGone)
    assert jobs.list_jobs(database, "acme").items == []


@pytest.mark.parametrize("which", ["err_file_id", "input_file_id"])
def test_what_a_retry_reads_is_not_deleted_while_it_is_created(
    database: Database, ended: Job, race: Race, which: str
) -> None:
    file = files.get(database, "acme", ended.input_file_id)
    won_and_lost(race(create(file, ended.id), delete(getattr(ended, which))))


@pytest.mark.parametrize("which", ["err_file_id", "input_file_id"])
def test_no_retry_is_created_of_a_file_that_is_being_deleted(
    database: Database, ended: Job, race: Race, which: str
) -> None:
    file = files.get(database, "acme", ended.input_file_id)
    _, late = race(delete(getattr(ended, which)), create(file, ended.id))
    assert isinstance(late, RetrySourceGone)


def test_two_batches_of_one_input_do_not_wait_for_each_other(
    database: Database, new_file: MakeFile, race: Race
) -> None:
    file = files.insert(database, new_file())
    one, two = race(create(file), create(file))
    assert one.new
    assert two.new


def test_a_key_whose_input_goes_while_both_ask(
    database: Database, new_file: MakeFile, race: Race
) -> None:
    """The second has looked for the key before the first one's batch was there."""
    file = files.insert(database, new_file())
    named = create(file, idem_key="k", idem_hash="h")
    one, two = race(named, named)
    assert (one.new, two.new, one.job.id) == (True, False, two.job.id)


def test_an_expired_input_is_kept_until_it_is_planned(
    database: Database, new_job: Create, make_plan: Callable[..., Plan]
) -> None:
    job = new_job()
    expire(database, job.input_file_id)
    assert [file.id for file in files.overdue(database)] == [job.input_file_id]
    assert not files.unread(database, job.input_file_id)
    claimed = planning.claim_plan(database, "p", lease_seconds=45)
    assert claimed is not None
    planning.commit_plan(database, job.id, claimed.plan_epoch, make_plan())
    assert files.unread(database, job.input_file_id)


@pytest.mark.parametrize("which", ["err_file_id", "input_file_id"])
def test_what_a_stopped_batch_has_yet_to_read_is_kept(
    database: Database, ended: Job, which: str
) -> None:
    file_id = getattr(ended, which)
    file = files.get(database, "acme", ended.input_file_id)
    retry = create(file, ended.id)(database).job
    jobs.request_stop(database, "acme", retry.id)
    tick(database)
    with pytest.raises(FileInUse):
        delete(file_id)(database)
    expire(database, file_id)
    assert not files.unread(database, file_id)
    assert files.load(database, file_id).id == file_id, "its finalizer can still read it"
    with pytest.raises(NotFound):
        delete(file_id)(database)


def test_a_file_that_expires_while_a_batch_of_it_is_created(
    database: Database, new_file: MakeFile, race: Race
) -> None:
    """Its collector has seen that it is overdue, and does not see the batch yet."""
    file = files.insert(database, new_file())
    _, unread = race(create(file), partial(files.unread, file_id=file.id))
    assert unread is False
