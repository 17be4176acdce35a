"""What a batch is expected to cost, and what it took in the end. Times are seconds."""

from typing import Literal, Self

from pydantic import BaseModel

from storage.database.states import TERMINAL_JOB_STATES
from storage.database.tables import Job
from storage.jobs.progress import JobProgress


class OutputTokens(BaseModel):
    """Output tokens that are expected, and between what they may lie.

    ``source`` is what lengths are known from: rows of this input that were run (``sample``),
    earlier batches of the same kind (``history``), or only the limits, which then are a bound.
    ``rows_seen``: on how many rows. ``most``: what the limits allow.
    """

    expected: int
    low: int
    high: int
    most: int
    source: Literal["sample", "history", "limit"]
    rows_seen: int


class DeviceSeconds(BaseModel):
    """Device time that is expected, and between what it may lie.

    ``source``: learned from what finished chunks took on ``devices``, in ``runs_seen`` batches; or
    a roofline, where the model never ran.
    """

    expected: float
    low: float
    high: float
    source: Literal["measured", "roofline"]
    runs_seen: int
    devices: list[str]


class Volume(BaseModel):
    """Such an input once, twice or three times: its rows, tokens and device time.

    ``seconds`` is the time from start to end with all engines, their start included. ``finish_at``
    and ``meets_window`` say when it would be done if it began at once, and whether the completion
    window is long enough. ``cost`` needs a price (``TIDEMILL_DEVICE_PRICE_PER_HOUR``).
    """

    volume: int
    rows: int
    output_tokens: int
    device_seconds: float
    seconds: float
    finish_at: int | None = None
    meets_window: bool | None = None
    cost: float | None = None

    def dated(self, job: Job, ahead_seconds: float, price_per_hour: float | None) -> Self:
        """The same, with what follows from when the job was planned, and from a price."""
        began = job.completed_at if job.only_estimated else job.in_progress_at
        finish = None if began is None else began + ahead_seconds + self.seconds
        hours = self.device_seconds / 3600
        return self.model_copy(
            update={
                "finish_at": None if finish is None else int(finish),
                "meets_window": None if finish is None else finish <= job.expires_at,
                "cost": None if price_per_hour is None else round(hours * price_per_hour, 4),
            }
        )


class Actual(BaseModel):
    """What a batch that has ended took."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    device_seconds: float
    seconds: float | None

    @classmethod
    def of(cls, progress: JobProgress, seconds: float | None) -> Self:
        """From the sums over a job's chunks, and the seconds that it ran."""
        return cls(
            prompt_tokens=progress.prompt_tokens,
            cached_tokens=progress.cached_tokens,
            output_tokens=progress.completion_tokens,
            device_seconds=round(progress.engine_seconds, 3),
            seconds=None if seconds is None else round(seconds, 3),
        )


class BatchEstimate(BaseModel):
    """What a batch was expected to cost when it was planned.

    Rows and prompt tokens are exact. ``duplicate_tokens`` and ``prefix_tokens`` are prompt tokens
    that need not be computed: of rows that equal another, and of beginnings that rows share.
    ``engines`` run side by side; ``start_seconds`` is what one takes to start, where the model does
    not run yet, and ``ahead_seconds`` what they have to do before.
    """

    rows: int
    invalid_rows: int
    duplicate_rows: int
    prompt_tokens: int
    duplicate_tokens: int
    prefix_tokens: int
    output_tokens: OutputTokens
    device_seconds: DeviceSeconds
    engines: int
    start_seconds: float
    ahead_seconds: float
    volumes: list[Volume]
    actual: Actual | None = None

    @classmethod
    def of(cls, job: Job, progress: JobProgress, seconds: float | None) -> Self | None:
        """That of a job that is planned; ``seconds`` is how long it has run."""
        kept = job.estimate
        if kept is None:
            return None
        found = cls.model_validate(kept)
        ahead, price = found.ahead_seconds, kept.get("price_per_hour")
        ended = job.state in TERMINAL_JOB_STATES and not job.only_estimated
        return found.model_copy(
            update={
                "volumes": [volume.dated(job, ahead, price) for volume in found.volumes],
                "actual": Actual.of(progress, seconds) if ended else None,
            }
        )
