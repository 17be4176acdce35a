"""Jobs that ended before their shards, by a process that knows of none: nothing is told too early.

A finalizer that waits for no shards, and a planner that makes none, are stood in for by the rows
that they would have left.
"""

from typing import Any

import pytest

from storage.database.states import OutputState
from storage.database.tables import Output
from worker.run.drain import drain
from worker.shards.write import write_output

IDS = [f"row-{number}" for number in range(1, 11)]


def ended(site: Any, before: str, after: str) -> str:
    """A job that has ended, and what was done to its shards before and after that."""
    job_id: str = site.rows(site.ten)
    site.bench.plan(job_id)
    drain(site.bench.worker, "smollm2")
    site.bench.sql(before)
    assert site.bench.finish(job_id).n_ok == 10
    site.bench.sql(after)
    return job_id


@pytest.mark.parametrize("state", ["completed", "cancelled"])
def test_shards_that_wait_are_written_after_the_end(site: Any, state: str) -> None:
    waiting = "UPDATE shard SET state = 'waiting'"
    job_id = ended(site, "UPDATE shard SET state = 'missing'", waiting)
    site.bench.sql(f"UPDATE job SET state = '{state}'")
    assert write_output(site.bench.worker)
    assert (site.manifest()["state"], len(site.listed())) == ("running", 4)
    assert "_SUCCESS" not in site.names()
    site.write()
    assert (site.manifest()["state"], [row["custom_id"] for row in site.listed()]) == (state, IDS)
    assert ("_SUCCESS" in site.names()) == (state == "completed")
    with site.bench.worker.database.read() as session:
        assert session.get_one(Output, job_id).state == OutputState.CLOSED


def test_a_job_without_its_shards_is_told_as_incomplete(site: Any) -> None:
    job_id = ended(site, "DELETE FROM shard", "SELECT 1")
    site.write()
    assert (site.manifest()["state"], site.names()) == ("incomplete", ["manifest.json"])
    with site.bench.worker.database.read() as session:
        assert session.get_one(Output, job_id).state == OutputState.FAILED
