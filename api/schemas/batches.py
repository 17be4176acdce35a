"""A batch in the API. Times are seconds since the epoch; unknown values are null."""

from typing import Any, Literal

from pydantic import BaseModel, SerializerFunctionWrapHandler, model_serializer

from api.schemas.common import Identified
from api.schemas.estimates import BatchEstimate

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]


class ErrorOrigin(BaseModel):
    """The row of a dataset that a line was made of, from 1 in its file."""

    file: str
    row: int


class BatchError(BaseModel):
    """Why a batch was refused; ``line`` counts the input's lines from 1.

    ``tidemill`` is there for the rows of a dataset alone.
    """

    code: str | None = None
    message: str | None = None
    param: str | None = None
    line: int | None = None
    tidemill: ErrorOrigin | None = None

    @model_serializer(mode="wrap")
    def _without_origin(self, standard: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = standard(self)
        if self.tidemill is None:
            del values["tidemill"]
        return values


class BatchErrors(BaseModel):
    """The first errors of the validation."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class RequestCounts(BaseModel):
    """Lines. ``failed`` counts the lines of the error file; at the end both add up to ``total``."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputTokensDetails(BaseModel):
    """Prompt tokens that came from the prefix cache."""

    cached_tokens: int


class OutputTokensDetails(BaseModel):
    """Reasoning tokens; they are not counted apart."""

    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    """Tokens so far."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails = OutputTokensDetails()
    total_tokens: int


class BatchProgress(BaseModel):
    """How far a batch is.

    A failed line is done, and its result is an error; a cancelled one never ran. Rates count prompt
    and output tokens together.
    """

    lines_total: int | None = None
    lines_done: int = 0
    lines_failed: int = 0
    lines_cancelled: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    tokens_per_second: float | None = None
    seconds_left: float | None = None


class BatchTiming(BaseModel):
    """Seconds spent in each phase so far; null for a phase that has not begun."""

    validating_seconds: float
    in_progress_seconds: float | None = None
    finalizing_seconds: float | None = None
    total_seconds: float


class BatchWait(BaseModel):
    """What keeps a batch from going on, and since when.

    ``model`` is the model that it waits for, if it is one.
    """

    code: str
    message: str
    model: str | None = None
    since: int


class BatchOutputProblem(BaseModel):
    """Why the results that are not written to a place of the caller's never will be."""

    code: str
    message: str


class BatchOutput(BaseModel):
    """How far results are written to a place of the caller's.

    ``shards_total`` is null until the batch is planned, and ``problem`` unless they were given up.
    """

    uri: str
    format: str
    shards_written: int
    shards_total: int | None = None
    rows_written: int
    problem: BatchOutputProblem | None = None


class BatchExtension(BaseModel):
    """What Tidemill adds to a batch of the OpenAI API.

    ``paused``: no more of it is started until it is resumed. ``waiting_for`` is null for a batch
    that goes on. ``retry_of``: the batch of which this one runs only the failed lines.
    ``input_uri``: what the input file is a snapshot of, where it is one. ``output``: where results
    are written beside the batch's own files, if they are. ``estimate`` is there once the batch is
    planned.
    """

    on_invalid: str
    priority: int
    input_uri: list[str] | None = None
    output: BatchOutput | None = None
    paused: bool = False
    waiting_for: BatchWait | None = None
    retry_of: str | None = None
    progress: BatchProgress
    plan: dict[str, Any] | None = None
    estimate: BatchEstimate | None = None
    invalid_lines: int = 0
    report_file_id: str | None = None
    timing: BatchTiming


class Batch(Identified):
    """A batch."""

    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None = None
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: BatchStatus
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts = RequestCounts()
    usage: BatchUsage | None = None
    metadata: dict[str, str] | None = None
    tidemill: BatchExtension
