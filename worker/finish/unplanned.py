"""The error lines of a job that was stopped before it was planned: one for each of its lines."""

from collections.abc import Callable, Iterator

from msgspec import Raw

from storage.database.states import StopReason
from storage.database.tables import Job
from worker.context import WorkerContext
from worker.endpoints.result_lines import never_run_line
from worker.errors import PlanRefused
from worker.plan.check import check
from worker.plan.envelope import LineRules
from worker.plan.job_input import JobInput
from worker.plan.retry import retry_source
from worker.run.chunk_run import NEVER_RUN_CODES
from worker.run.parts import Record


def unplanned_records(
    worker: WorkerContext, job: Job, heartbeat: Callable[[], None]
) -> Iterator[Record]:
    """Error records of every line, in the input's order, in flat memory.

    Nothing is planned: a line that is no request was not run either, and is told so.

    Raises:
        StorageError, PlanRefused: the lines cannot be read (`worker.plan.planner.REFUSING`), or
            the store failed.
    """
    code = NEVER_RUN_CODES[StopReason(job.cancel or StopReason.CANCELLED)]
    rules = LineRules(job.endpoint, (), worker.settings.worker.default_model)
    retry = retry_source(worker.database, job)
    given = JobInput(worker.settings, worker.store, job, heartbeat, retry)
    given.check_not_empty()
    found = False
    with given.lines() as lines, given.chosen() as chosen:
        for line in lines:
            heartbeat()
            if line.number in chosen:
                found = True
                custom_id = check(line, rules).custom_id
                origin = given.origins.of(line.number)
                text = never_run_line(job.id, line.number, custom_id, code, origin)
                yield Record(line.number, False, Raw(text))
    if not found:
        raise PlanRefused("The input file has no lines to run.", code="empty_batch")
