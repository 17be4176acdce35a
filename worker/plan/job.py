"""Planning of a job under a lease: claim it, plan it, and start or fail it in one transaction."""

import time
from collections.abc import Callable

import structlog

from storage.database.tables import Job
from storage.disk import disk_error
from storage.errors import ConfigurationError, ObjectStoreError, StateConflict, StorageError
from storage.jobs import planning, waiting_models
from storage.jobs.planning import Plan, Refusal
from storage.jobs.waiting_models import Wait
from storage.registry import models
from storage.wakeups import Wakeup
from worker.allowance import Allowance
from worker.context import WorkerContext
from worker.errors import (
    TEMPORARY_FOLDER,
    LeaseLost,
    ModelNotReady,
    PlanRefused,
    Stopping,
    TakesLong,
)
from worker.estimates.make import with_estimate
from worker.lease import Lease, Renewal
from worker.plan.planner import Planner, refusal
from worker.plan.retry import retry_source
from worker.plan.scratch import scratch_folder

log = structlog.get_logger(__name__)

MAX_ATTEMPTS = 5
RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 60.0


def plan_job(worker: WorkerContext, job_id: str, allowance: Allowance | None = None) -> bool:
    """Plan a job, unless it is planned already or another worker is planning it.

    Returns false where it was given back because it takes longer than ``allowance``.
    """
    since = time.monotonic()
    lease_seconds = worker.settings.worker.lease_seconds
    job = planning.claim_plan(
        worker.database, worker.owner, lease_seconds=lease_seconds, job_id=job_id
    )
    if job is None:
        return True
    epoch = job.plan_epoch
    log.info("plan_started", job=job.id, epoch=epoch)

    def renew() -> Renewal:
        renewed = planning.renew_plan(worker.database, job_id, epoch, lease_seconds=lease_seconds)
        return Renewal(renewed.still_mine, renewed.stop)

    with worker.kept_lease(f"plan of {job_id}", renew, since) as lease:
        try:
            heartbeat = (allowance or Allowance()).around(worker.heartbeat(lease))
            _settle(worker, job, lease, heartbeat, since)
        except (LeaseLost, StateConflict):
            log.warning("plan_abandoned", job=job_id, epoch=epoch)
        except Stopping:
            planning.release_plan(worker.database, job_id, epoch)
            log.info("plan_given_back", job=job_id, epoch=epoch)
        except TakesLong:
            planning.release_plan(worker.database, job_id, epoch)
            log.info("plan_takes_long", job=job_id, epoch=epoch)
            return False
        except ModelNotReady as error:
            _wait_for_model(worker, job, error)
        except OSError as error:
            _postpone(worker, job, disk_error(error, TEMPORARY_FOLDER))
        except StorageError as error:
            # Beside what passes by itself: credentials, rights and quotas, which people can mend.
            if not (error.retryable or isinstance(error, ObjectStoreError | ConfigurationError)):
                raise
            _postpone(worker, job, error)
    return True


def _postpone(worker: WorkerContext, job: Job, error: StorageError) -> None:
    log.warning("plan_postponed", job=job.id, code=error.code, reason=str(error))
    wait = Wait(error.code, "The service cannot use its storage at the moment; it tries again.")
    _release(worker, job, wait, RETRY_SECONDS)


def _wait_for_model(worker: WorkerContext, job: Job, error: ModelNotReady) -> None:
    waited = waiting_models.seconds_waited(worker.database, job)
    delay = min(max(RETRY_SECONDS, waited / 2), LONGEST_RETRY_SECONDS)
    log.warning("plan_waits_for_model", job=job.id, model=error.model, reason=str(error))
    wait = Wait(error.reason, str(error), error.model)
    _release(worker, job, wait, delay)


def _release(worker: WorkerContext, job: Job, wait: Wait, delay: float) -> None:
    note = waiting_models.wait_note(worker.database, job, wait)
    planning.release_plan(worker.database, job.id, job.plan_epoch, delay=delay, waiting_for=note)


def _settle(
    worker: WorkerContext, job: Job, lease: Lease, heartbeat: Callable[[], None], since: float
) -> None:
    database = worker.database
    outcome = _exhausted() if job.attempts > MAX_ATTEMPTS else _outcome(worker, job, heartbeat)
    lease.check()
    seconds = round(time.monotonic() - since, 3)
    if isinstance(outcome, Refusal):
        planning.fail_job(database, job.id, job.plan_epoch, outcome)
        code = outcome.errors[0]["code"]
        log.info("job_failed", job=job.id, code=code, invalid=outcome.n_invalid, seconds=seconds)
        return
    if job.only_estimated:
        planning.complete_estimate(database, job.id, job.plan_epoch, outcome)
        log.info("job_estimated", job=job.id, seconds=seconds, **outcome.summary)
        return
    planning.commit_plan(database, job.id, job.plan_epoch, outcome)
    log.info("job_planned", job=job.id, seconds=seconds, **outcome.summary)
    for model in {chunk.model for chunk in outcome.chunks}:
        worker.wakeups.send(Wakeup.drain(model))


def _outcome(worker: WorkerContext, job: Job, heartbeat: Callable[[], None]) -> Plan | Refusal:
    try:
        retry = retry_source(worker.database, job)
    except PlanRefused as error:
        return refusal(error.code, str(error), error.param)
    waited = waiting_models.seconds_waited(worker.database, job)
    sources = {row.name: row.source for row in models.list_models(worker.database)}
    with scratch_folder() as folder:
        outcome = Planner(
            worker.settings,
            worker.store,
            job,
            sources,
            folder,
            heartbeat,
            worker.load_text_model,
            retry,
            patient=waited < worker.settings.worker.model_wait_seconds,
        ).run()
    if isinstance(outcome, Refusal):
        return outcome
    try:
        return with_estimate(worker, job, outcome, sources)
    except (StorageError, LeaseLost, Stopping, TakesLong):
        raise
    except Exception:
        if job.only_estimated:
            raise
        # What a job may cost is told beside its work; it runs without.
        log.exception("estimate_failed", job=job.id)
        return outcome


def _exhausted() -> Refusal:
    message = f"Planning this batch ended the worker {MAX_ATTEMPTS} times; it was given up."
    return refusal("internal_error", message)
