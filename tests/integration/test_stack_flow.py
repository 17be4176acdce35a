"""Whole jobs on PostgreSQL, S3 and Valkey, with the API, a worker and the reconciler as processes.

Every job, however it ends, is put before the checker, with another tenant looking on.
"""

import random
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import psycopg
import pytest
from openai.types import Batch

from integration.harness import tiny
from integration.harness.arena import Arena, open_arena
from integration.harness.checker import Verdict, judge
from integration.harness.orders import Order, make_order
from integration.harness.tenant import done
from integration.harness.witness import collect
from integration.soak.phases import SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.servers]

CHUNK_LINES = 8
SLOW = (200, 260)  # tokens of an answer
MANY = 1_500  # lines with such answers: far more than are computed until somebody ends the batch


@pytest.fixture(scope="module")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    folder = tmp_path_factory.mktemp("arena")
    settings: dict[str, Any] = SETTINGS | {"chunk_lines": CHUNK_LINES, "max_num_seqs": 8}
    with open_arena(folder, workers=1, **settings) as arena:
        yield arena


@pytest.fixture(autouse=True)
def _alive(arena: Arena) -> None:
    assert arena.revive() == []


def verdict_on(arena: Arena, batch: Batch, order: Order) -> Verdict:
    owner, stranger = arena.tenants
    evidence = collect(
        owner.witness,
        batch.id,
        order.content,
        strangers=[stranger.witness],
        refusals=order.refusals,
    )
    return judge(evidence, tiny.answer)


def rows(arena: Arena, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(arena.stack.postgres.url) as connection:
        return connection.execute(query, values).fetchall()


def chunks_done(arena: Arena, batch: Batch) -> dict[str, str]:
    """The committed chunks of a batch and their parts."""
    query = "SELECT id, part_key FROM chunk WHERE job_id = %s AND state = 'done'"
    return dict(rows(arena, query, batch.id))


def wait_for_chunk(arena: Arena, batch: Batch, count: int = 1) -> dict[str, str]:
    """Wait until so many chunks are committed."""
    deadline = time.monotonic() + 120
    while len(found := chunks_done(arena, batch)) < count:
        assert time.monotonic() < deadline, arena.stack.workers[0].log_tail()
        time.sleep(0.1)
    return found


def test_two_tenants_get_their_answers_and_see_nothing_of_each_other(arena: Arena) -> None:
    orders = [make_order(random.Random(seed), 300) for seed in (1, 2)]
    batches = [tenant.submit(order) for tenant, order in zip(arena.tenants, orders, strict=True)]
    for place, tenant in enumerate(arena.tenants):
        batch, order = tenant.wait(batches[place].id), orders[place]
        assert batch.status == "completed"
        stranger = arena.tenants[1 - place]
        evidence = collect(
            tenant.witness,
            batch.id,
            order.content,
            strangers=[stranger.witness],
            refusals=order.refusals,
        )
        verdict = judge(evidence, tiny.answer)
        assert verdict.violations == ()
        assert verdict.answered == 300 - len(order.refusals)
        for path, item in (("/batches", batch.id), ("/files", batch.output_file_id or "")):
            assert tenant.witness.lists(path, item)[1] == 200
            assert stranger.witness.lists(path, item)[1] == 404
        with pytest.raises(openai.NotFoundError):
            stranger.tell(batch.id, "cancel")
    nobody = httpx.get(f"{arena.stack.client_url}/batches", headers={"Authorization": "Bearer x"})
    assert nobody.status_code == 401


def test_a_cancelled_batch_ends_in_seconds_and_its_failed_lines_can_be_retried(
    arena: Arena,
) -> None:
    tenant = arena.tenants[0]
    order = make_order(random.Random(3), 400, tokens=SLOW, spotless=True)
    batch = tenant.submit(order)
    wait_for_chunk(arena, batch)
    began = time.monotonic()
    tenant.tell(batch.id, "cancel")
    batch = tenant.wait(batch.id)
    assert time.monotonic() - began < 20
    assert batch.status == "cancelled"
    verdict = verdict_on(arena, batch, order)
    assert verdict.violations == ()
    assert CHUNK_LINES // 2 <= verdict.answered < 400

    evidence = collect(tenant.witness, batch.id, order.content)
    assert evidence.errors is not None
    rest = order.only(evidence.errors.ids)
    again = tenant.tell(batch.id, "retry")
    assert again.id != batch.id
    assert again.input_file_id == batch.input_file_id
    again = tenant.wait(again.id)
    assert again.status == "completed"
    assert tenant.witness.json(f"/batches/{again.id}")["tidemill"]["retry_of"] == batch.id
    verdict = verdict_on(arena, again, rest)
    assert verdict.violations == ()
    assert verdict.answered == len(rest.ids)


def test_a_paused_batch_rests_until_it_is_resumed(arena: Arena) -> None:
    tenant = arena.tenants[0]
    order = make_order(random.Random(4), 200, tokens=(60, 80), spotless=True)
    batch = tenant.submit(order)
    wait_for_chunk(arena, batch)
    tenant.tell(batch.id, "pause")
    leased = "SELECT 1 FROM chunk WHERE job_id = %s AND state = 'leased'"
    deadline = time.monotonic() + 60
    while rows(arena, leased, batch.id):  # what is in flight runs to its commit
        assert time.monotonic() < deadline
        time.sleep(0.2)
    rested = tenant.batch(batch.id)
    assert tenant.witness.json(f"/batches/{batch.id}")["tidemill"]["paused"] is True
    assert 0 < done(rested) < 200
    time.sleep(3 * float(SETTINGS["reconcile_seconds"]))
    assert done(tenant.batch(batch.id)) == done(rested)
    attempts = "SELECT max(attempt) FROM chunk WHERE job_id = %s"

    tenant.tell(batch.id, "resume")
    batch = tenant.wait(batch.id)
    assert batch.status == "completed"
    assert rows(arena, attempts, batch.id) == [(1,)], "a chunk was computed twice"
    assert verdict_on(arena, batch, order).violations == ()


def test_a_batch_expires_at_the_end_of_its_window_and_keeps_what_is_done(arena: Arena) -> None:
    tenant = arena.tenants[0]
    order = make_order(random.Random(5), MANY, tokens=SLOW, spotless=True)
    batch = tenant.submit(order)
    wait_for_chunk(arena, batch)
    with psycopg.connect(arena.stack.postgres.url) as connection:  # the window is an hour at least
        connection.execute(
            "UPDATE job SET expires_at = extract(epoch FROM now()) WHERE id = %s", [batch.id]
        )
    batch = tenant.wait(batch.id)
    assert batch.status == "expired"
    verdict = verdict_on(arena, batch, order)
    assert verdict.violations == ()
    assert CHUNK_LINES // 2 <= verdict.answered < MANY


def test_sigterm_drains_a_worker_and_nothing_is_held_against_its_chunks(arena: Arena) -> None:
    tenant = arena.tenants[0]
    worker = arena.stack.workers[0]
    order = make_order(random.Random(6), 80, tokens=SLOW, spotless=True)
    batch = tenant.submit(order)
    wait_for_chunk(arena, batch)
    began = time.monotonic()
    assert worker.stop(timeout=40) == 0
    assert time.monotonic() - began < 30
    left = "SELECT count(*) FROM chunk WHERE job_id = %s AND (state = 'leased' OR crashes > 0)"
    assert rows(arena, left, batch.id) == [(0,)]
    worker.start()
    batch = tenant.wait(batch.id)
    assert batch.status == "completed"
    assert verdict_on(arena, batch, order).violations == ()


def test_after_a_power_cut_no_committed_line_is_computed_again(arena: Arena) -> None:
    tenant = arena.tenants[0]
    order = make_order(random.Random(7), 160, tokens=(100, 150), spotless=True)
    batch = tenant.submit(order)
    before = wait_for_chunk(arena, batch, 2)
    arena.stack.kill()
    assert not any(part.running for part in arena.stack.everything)
    arena.stack.start()
    batch = tenant.wait(batch.id)
    assert batch.status == "completed"
    assert chunks_done(arena, batch).items() >= before.items()
    assert verdict_on(arena, batch, order).violations == ()


@pytest.mark.timeout(420)  # seven starts of the engine
def test_a_poison_line_ends_as_one_error_and_its_neighbours_are_answered(
    arena: Arena, record_property: Any
) -> None:
    tenant = arena.tenants[0]
    order = make_order(random.Random(8), 4 * CHUNK_LINES, poison=(5,), spotless=True)
    before = arena.count_in_logs("engine_died")
    batch = tenant.wait(tenant.submit(order).id, seconds=300)
    assert batch.status == "completed"
    verdict = verdict_on(arena, batch, order)
    assert verdict.violations == ()
    assert verdict.answered == 4 * CHUNK_LINES - 1
    deaths = arena.count_in_logs("engine_died") - before
    record_property("engine_deaths", deaths)
    # Two of the whole chunk, one at each halving to two lines, three of the line alone.
    assert 3 <= deaths <= 2 + 2 + 3
