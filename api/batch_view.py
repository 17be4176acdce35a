"""From a job's row to the batch that a client sees."""

from collections.abc import Mapping
from dataclasses import dataclass

from api.schemas.batches import (
    Batch,
    BatchError,
    BatchErrors,
    BatchExtension,
    BatchOutput,
    BatchOutputProblem,
    BatchProgress,
    BatchStatus,
    BatchTiming,
    BatchUsage,
    BatchWait,
    InputTokensDetails,
    RequestCounts,
)
from api.schemas.estimates import BatchEstimate
from storage.database.states import OPEN_JOB_STATES, TERMINAL_JOB_STATES, JobState, StopReason
from storage.database.tables import Job
from storage.datasets.values.dataset_options import OPTIONS_KEY
from storage.estimates.left import Done, is_measured, seconds_left
from storage.jobs.jobs import JobView
from storage.jobs.outputs.views import OutputView
from storage.jobs.progress import JobProgress

STATUSES: Mapping[JobState, BatchStatus] = {
    JobState.VALIDATING: "validating",
    JobState.RUNNING: "in_progress",
    JobState.FINALIZING: "finalizing",
    JobState.COMPLETED: "completed",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
    JobState.EXPIRED: "expired",
}


@dataclass(frozen=True)
class Span:
    """When each phase of a job began, and when the job ended; ``now`` is the database's clock."""

    job: Job
    now: float

    @property
    def ended(self) -> float | None:
        job = self.job
        times = (job.completed_at, job.failed_at, job.expired_at, job.cancelled_at)
        return next((t for t in times if t is not None), None)

    def seconds(self, begin: float | None, *ends: float | None) -> float | None:
        """From ``begin`` to the first of ``ends`` that is known, else to the end or to now."""
        if begin is None:
            return None
        end = next((t for t in (*ends, self.ended) if t is not None), self.now)
        return max(0.0, end - begin)


def status_of(job: Job) -> BatchStatus:
    """The status on the wire.

    A batch that its owner cancels is "cancelling" until it ends. The API has no such status for one
    that runs out of time: it keeps the status of its state until it is "expired".
    """
    state = JobState(job.state)
    if job.cancel == StopReason.CANCELLED and state not in TERMINAL_JOB_STATES:
        return "cancelling"
    return STATUSES[state]


def batch_of(view: JobView, output: OutputView | None = None) -> Batch:
    """The wire form of a job, and of its output where it has one."""
    job, progress = view.job, view.progress
    span = Span(job, view.now)
    return Batch(
        id=job.id,
        endpoint=job.endpoint,
        model=job.model,
        errors=_errors(job),
        input_file_id=job.input_file_id,
        completion_window=job.completion_window,
        status=status_of(job),
        output_file_id=job.out_file_id,
        error_file_id=job.err_file_id,
        created_at=int(job.created_at),
        in_progress_at=_second(job.in_progress_at),
        expires_at=_second(job.expires_at),
        finalizing_at=_second(job.finalizing_at),
        completed_at=_second(job.completed_at),
        failed_at=_second(job.failed_at),
        expired_at=_second(job.expired_at),
        cancelling_at=_second(job.cancelling_at),
        cancelled_at=_second(job.cancelled_at),
        request_counts=RequestCounts(
            total=job.n_lines or 0,
            completed=progress.n_ok,
            failed=progress.n_err + progress.n_cancelled,
        ),
        usage=_usage(job, progress),
        metadata=job.meta,
        tidemill=_extension(job, progress, span, output),
    )


def _second(time: float | None) -> int | None:
    return None if time is None else int(time)


def _errors(job: Job) -> BatchErrors | None:
    if not job.errors:
        return None
    return BatchErrors(data=[BatchError.model_validate(error) for error in job.errors])


def _usage(job: Job, progress: JobProgress) -> BatchUsage | None:
    if job.state == JobState.VALIDATING:
        return None
    return BatchUsage(
        input_tokens=progress.prompt_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=progress.cached_tokens),
        output_tokens=progress.completion_tokens,
        total_tokens=progress.prompt_tokens + progress.completion_tokens,
    )


def _extension(
    job: Job, progress: JobProgress, span: Span, output: OutputView | None
) -> BatchExtension:
    return BatchExtension(
        on_invalid=str(job.options.get("on_invalid", "fail")),
        priority=job.priority,
        input_uri=job.options.get(OPTIONS_KEY, {}).get("input_uri"),
        output=_output(output),
        paused=job.paused_at is not None,
        waiting_for=_waiting_for(job, progress) or _refused_by_place(output),
        retry_of=job.retry_of,
        progress=_progress(job, progress, span),
        plan=job.plan,
        estimate=BatchEstimate.of(
            job, progress, span.seconds(job.in_progress_at, job.finalizing_at)
        ),
        invalid_lines=job.n_invalid,
        report_file_id=job.report_file_id,
        timing=_timing(job, span),
    )


def _waiting_for(job: Job, progress: JobProgress) -> BatchWait | None:
    """What the batch waits for, unless somebody is at work on it all the same."""
    held = job.cancel or job.paused_at is not None
    at_work = job.lease_owner is not None or progress.running
    if not job.waiting_for or held or at_work or job.state not in OPEN_JOB_STATES:
        return None
    note = job.waiting_for
    return BatchWait(
        code=note["code"], message=note["message"], model=note["model"], since=int(note["since"])
    )


def _output(view: OutputView | None) -> BatchOutput | None:
    if view is None:
        return None
    return BatchOutput(
        uri=view.uri,
        format=view.format,
        shards_written=view.shards_written,
        shards_total=view.shards_total,
        rows_written=view.rows_written,
        problem=BatchOutputProblem.model_validate(view.failure) if view.failure else None,
    )


def _refused_by_place(view: OutputView | None) -> BatchWait | None:
    if view is None or view.problem is None:
        return None
    note = view.problem
    return BatchWait(code=note["code"], message=note["message"], since=int(note["since"]))


def _progress(job: Job, progress: JobProgress, span: Span) -> BatchProgress:
    tokens = progress.prompt_tokens + progress.completion_tokens
    running = span.seconds(job.in_progress_at, job.finalizing_at)
    return BatchProgress(
        lines_total=job.n_lines,
        lines_done=progress.done,
        lines_failed=progress.n_err,
        lines_cancelled=progress.n_cancelled,
        prompt_tokens=progress.prompt_tokens,
        cached_tokens=progress.cached_tokens,
        output_tokens=progress.completion_tokens,
        tokens_per_second=round(tokens / running, 1) if running and tokens else None,
        seconds_left=_seconds_left(job, progress, running),
    )


def _seconds_left(job: Job, progress: JobProgress, running: float | None) -> float | None:
    """The time that the remaining lines take, or `None` where nothing is known of it."""
    if job.state in TERMINAL_JOB_STATES:
        return 0.0
    held = job.cancel or job.paused_at is not None
    if job.state != JobState.RUNNING or held or not (running and job.n_lines):
        return None
    if not progress.done and not is_measured(job.estimate):
        return None
    if job.estimate is None:
        left = running * max(0, job.n_lines - progress.done) / progress.done
    else:
        tokens = progress.prompt_tokens, progress.completion_tokens
        left = seconds_left(job.estimate, Done(progress.done, job.n_lines, *tokens), running)
    return round(left, 1)


def _timing(job: Job, span: Span) -> BatchTiming:
    def rounded(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds, 3)

    return BatchTiming(
        validating_seconds=rounded(span.seconds(job.created_at, job.in_progress_at)) or 0.0,
        in_progress_seconds=rounded(span.seconds(job.in_progress_at, job.finalizing_at)),
        finalizing_seconds=rounded(span.seconds(job.finalizing_at)),
        total_seconds=rounded(span.seconds(job.created_at)) or 0.0,
    )
