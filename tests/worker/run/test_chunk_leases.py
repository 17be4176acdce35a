"""Leases of chunks: renewed together, asked between renewals, and lost one by one."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from storage.database.states import ChunkState, StopReason
from storage.errors import DatabaseUnavailable
from storage.jobs import chunks
from worker.lease import Lease
from worker.plan.plan_file import PlanFile
from worker.run.chunk_leases import ChunkLeases
from worker.run.chunk_run import ChunkRun

Line = Callable[..., dict[str, Any]]
Claim = Callable[..., tuple[str, ChunkLeases, list[Lease]]]


@pytest.fixture
def claim() -> Iterator[Claim]:
    """Plans a job of three chunks, claims them all and keeps their leases."""
    runs: list[ChunkRun] = []
    yield lambda bench, line: _claimed(bench, line, runs)
    for run in runs:
        run.close()


def _claimed(
    bench: Any, line: Line, runs: list[ChunkRun], count: int = 3
) -> tuple[str, ChunkLeases, list[Lease]]:
    job_id: str = bench.create([line(f"row{i}", f"w{i}") for i in range(4 * count)])
    bench.plan(job_id)
    worker = bench.worker
    leases = ChunkLeases(worker)
    held = []
    for _ in range(count):
        since = time.monotonic()
        chunk = chunks.claim_chunk(
            worker.database, worker.owner, ["smollm2"], lease_seconds=45, max_crashes=3
        )
        assert chunk is not None
        with worker.store.reader(chunk.plan_key) as stream:
            runs.append(ChunkRun(chunk, PlanFile(stream.read())))
        held.append(leases.add(runs[-1], since))
    return job_id, leases, held


def test_all_are_renewed_in_one_transaction_and_a_lost_one_takes_none_with_it(
    make_bench: Any, line: Line, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(chunk_lines=4, renew_seconds=0.01)
    job_id, leases, held = claim(bench, line)
    rows = bench.chunks(job_id)
    bench.sql("UPDATE chunk SET lease_exp = 1")
    bench.sql(f"UPDATE chunk SET attempt = 2 WHERE id = '{rows[0].id}'")
    writes: list[int] = []
    write = bench.worker.database.write

    def counted() -> Any:
        writes.append(1)
        return write()

    monkeypatch.setattr(bench.worker.database, "write", counted)
    time.sleep(0.02)
    leases.keep()
    assert len(writes) == 1
    assert [lease.lost for lease in held].count(True) == 1
    renewed = [c.lease_exp > 1 for c in bench.chunks(job_id) if c.state == ChunkState.LEASED]
    assert sorted(renewed) == [False, True, True]


def test_a_stop_is_noticed_long_before_the_next_renewal(
    make_bench: Any, line: Line, claim: Claim
) -> None:
    bench = make_bench(chunk_lines=4, renew_seconds=1_000)
    job_id, leases, held = claim(bench, line)
    assert leases.every_seconds <= 2
    before = [chunk.lease_exp for chunk in bench.chunks(job_id)]
    bench.sql("UPDATE job SET cancel = 'cancelled'")
    leases.keep()
    assert [lease.stop for lease in held] == [StopReason.CANCELLED] * 3
    assert [chunk.lease_exp for chunk in bench.chunks(job_id)] == before


def test_a_database_that_is_away_is_not_yet_a_loss(
    make_bench: Any, line: Line, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench(chunk_lines=4, renew_seconds=0.01)
    _, leases, held = claim(bench, line)

    def away(*arguments: Any, **options: Any) -> Any:
        raise DatabaseUnavailable

    monkeypatch.setattr("worker.run.chunk_leases.renew_chunks", away)
    time.sleep(0.02)
    with pytest.raises(DatabaseUnavailable):
        leases.keep()
    assert not any(lease.lost for lease in held)
