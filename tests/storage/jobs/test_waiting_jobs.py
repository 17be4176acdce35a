"""Which jobs wait to be planned or finalized, and in which order."""

from collections.abc import Callable
from typing import Any

import pytest

from moves import commit, must_claim, tick
from storage.database.connection import Database
from storage.database.tables import Job
from storage.jobs import jobs, planning
from storage.jobs.planning import Plan
from storage.jobs.waiting_jobs import SHORT_BYTES, SHORT_LINES, waiting_jobs
from storage.registry import files
from storage.registry.files import NewFile

Create = Callable[..., Job]


def ids(database: Database, *, short: bool = True, **options: Any) -> list[str]:
    return [job.job_id for job in waiting_jobs(database, short=short, **options)]


@pytest.fixture
def large(database: Database, new_job: Create, new_file: Callable[..., NewFile]) -> Create:
    """Creates jobs of a large input."""

    def create(**changes: Any) -> Job:
        file = files.insert(database, new_file(bytes=SHORT_BYTES + 1))
        return new_job(input_file=file, **changes)

    return create


def test_large_inputs_are_not_among_the_short(
    database: Database, new_job: Create, large: Create
) -> None:
    big = [large().id, large().id]
    small = new_job().id
    assert ids(database) == [small]
    assert ids(database, short=False) == big


def test_a_job_that_is_known_to_be_long_is_not_among_the_short(
    database: Database, new_job: Create
) -> None:
    bomb, small = new_job().id, new_job().id
    assert ids(database, long_ids={bomb}) == [small]
    assert ids(database, short=False, long_ids={bomb}) == [bomb]


def test_many_lines_take_long_to_merge(database: Database, running_job: Create) -> None:
    expected = {}
    for size in (SHORT_LINES, SHORT_LINES + 1):
        expected[size] = running_job(size).id
        commit(database, must_claim(database))
    tick(database)
    assert ids(database) == [expected[SHORT_LINES]]
    assert ids(database, short=False) == [expected[SHORT_LINES + 1]]
    assert not any(job.plan for job in waiting_jobs(database, short=True))


def test_a_job_that_is_stopped_unplanned_is_finalized_by_its_input(
    database: Database, new_job: Create, large: Create
) -> None:
    small, big = new_job(), large()
    for job in (small, big):
        jobs.request_stop(database, "acme", job.id)
    assert ids(database) == ids(database, short=False) == [], "nobody plans them any more"
    tick(database)
    assert ids(database) == [small.id]
    assert ids(database, short=False) == [big.id]


def test_tenants_take_their_turns(database: Database, new_job: Create) -> None:
    many = [new_job(tenant_id="many").id for _ in range(4)]
    few = [new_job(tenant_id="few").id for _ in range(2)]
    assert ids(database) == [many[0], few[0], many[1], few[1], many[2], many[3]]
    assert ids(database, limit=2) == [many[0], few[0]]


def test_priority_comes_first(database: Database, new_job: Create) -> None:
    plain, urgent = new_job().id, new_job(priority=5).id
    other = new_job(tenant_id="other").id
    assert ids(database) == [urgent, other, plain] or ids(database) == [urgent, plain, other]
    assert ids(database)[0] == urgent


def test_leased_jobs_do_not_wait(
    database: Database, new_job: Create, make_plan: Callable[..., Plan]
) -> None:
    job = new_job()
    claimed = planning.claim_plan(database, "p", lease_seconds=45)
    assert claimed is not None
    assert ids(database) == []
    planning.release_plan(database, job.id, claimed.plan_epoch)
    assert ids(database) == [job.id]
    planning.release_plan(database, job.id, claimed.plan_epoch, delay=60)
    assert ids(database) == [job.id], "it was given back already"
