"""Lines that end every worker that runs them: they get an error instead of another try."""

import time

import structlog

from storage.database.tables import Chunk
from storage.errors import ObjectNotFound, StateConflict
from storage.jobs.chunks import Counts, claim_poison, release_chunk
from worker.context import WorkerContext
from worker.endpoints.result_lines import problem_line
from worker.errors import BrokenPlan
from worker.plan.plan_file import PlanFile
from worker.problems import Problem
from worker.run.commit import commit_part
from worker.run.held_chunks import backoff
from worker.run.lost_plan import give_up_plan
from worker.run.parts import encode_record

log = structlog.get_logger(__name__)


def bury_poison(worker: WorkerContext) -> int:
    """Commit an error for every line that crashed too often, and return how many there were.

    Raises:
        StorageError: the store or the database failed; the lease will run out.
    """
    buried = 0
    while not worker.stopping.is_set():
        since = time.monotonic()
        settings = worker.settings
        chunk = claim_poison(
            worker.database,
            worker.owner,
            lease_seconds=settings.worker.lease_seconds,
            max_crashes=settings.worker.max_crashes,
        )
        if chunk is None:
            break
        try:
            commit_part(worker, chunk, [_error_record(worker, chunk)], Counts(err=1))
        except (BrokenPlan, ObjectNotFound) as error:
            give_up_plan(worker, chunk, error.code)
            release_chunk(worker.database, chunk.id, chunk.attempt, delay=backoff(chunk))
            continue
        except StateConflict as error:
            log.error("poison_line_kept", chunk=chunk.id, job=chunk.job_id, reason=error.code)
            continue
        buried += 1
        log.warning(
            "poison_line_buried",
            job=chunk.job_id,
            chunk=chunk.id,
            crashes=chunk.crashes,
            engine_crashes=chunk.engine_crashes,
            seconds=round(time.monotonic() - since, 3),
        )
    return buried


def _error_record(worker: WorkerContext, chunk: Chunk) -> bytes:
    with worker.store.reader(chunk.plan_key) as stream:
        plan = PlanFile(stream.read())
    (row,) = plan.rows(chunk.a, chunk.b)
    problem = row.problem
    status = 400
    if problem is None:
        status = 500
        problem = Problem(
            row.line,
            "engine_crashed",
            _ending(chunk),
            custom_id=row.custom_id,
        )
    text = problem_line(chunk.job_id, problem, status, plan.origins.of(row.line))
    return encode_record(row.line, False, text)


def _ending(chunk: Chunk) -> str:
    if chunk.engine_crashes == chunk.crashes:
        return f"The engine ended each of the {chunk.crashes} times that it ran this line."
    return (
        f"This line was taken up {chunk.crashes} times, and each time its worker or engine ended, "
        "or lost its lease, before there was an answer."
    )
