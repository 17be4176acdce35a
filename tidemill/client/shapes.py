"""The service's objects as the client reads them.

Times are Unix seconds. Fields that are not listed here are ignored.
"""

from typing import Any

from msgspec import Struct, field

TERMINAL_STATUSES = frozenset({"completed", "failed", "cancelled", "expired"})


class File(Struct, frozen=True):
    """An uploaded or produced file; ``bytes`` is its size."""

    id: str
    bytes: int
    filename: str
    purpose: str
    created_at: int
    expires_at: int | None = None


class Model(Struct, frozen=True):
    """A model the service may run."""

    id: str
    created: int = 0
    owned_by: str = ""


class Counts(Struct, frozen=True):
    """Lines of a batch."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class InputDetails(Struct, frozen=True):
    """Prompt tokens that came from the prefix cache."""

    cached_tokens: int = 0


class Usage(Struct, frozen=True):
    """Tokens of a batch."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: InputDetails = field(default_factory=InputDetails)

    @property
    def cached_share(self) -> float:
        """Share of the prompt tokens that came from the prefix cache, from 0 to 1."""
        return self.input_tokens_details.cached_tokens / max(1, self.input_tokens)


class Origin(Struct, frozen=True):
    """The row of a dataset that a line was made of."""

    file: str
    row: int


class BatchProblem(Struct, frozen=True):
    """One reason why a batch failed validation."""

    code: str | None = None
    message: str | None = None
    param: str | None = None
    line: int | None = None
    tidemill: Origin | None = None

    @property
    def place(self) -> str:
        """Where it is, for people: a row of a file, or a line of the input; empty for neither."""
        if self.tidemill is not None:
            return f"{self.tidemill.file}, row {self.tidemill.row}: "
        return f"line {self.line}: " if self.line else ""


class BatchProblems(Struct, frozen=True):
    """The list of them, capped; the report file has all."""

    data: list[BatchProblem] = field(default_factory=list)


class Progress(Struct, frozen=True):
    """How far a running batch is."""

    lines_total: int | None = None
    lines_done: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    tokens_per_second: float | None = None
    seconds_left: float | None = None


class Wait(Struct, frozen=True):
    """What keeps a batch from going on, and since when."""

    code: str
    message: str
    model: str | None = None
    since: int = 0


class OutputTokens(Struct, frozen=True):
    """Output tokens that are expected, between what they may lie, and from what that is known."""

    expected: int
    low: int
    high: int
    most: int
    source: str
    rows_seen: int = 0


class DeviceSeconds(Struct, frozen=True):
    """Device time that is expected, between what it may lie, and from what that is known."""

    expected: float
    low: float
    high: float
    source: str
    runs_seen: int = 0
    devices: list[str] = field(default_factory=list)


class Volume(Struct, frozen=True):
    """So many times the input: its rows, tokens, time and cost, and when it would be done."""

    volume: int
    rows: int
    output_tokens: int
    device_seconds: float
    seconds: float
    finish_at: int | None = None
    meets_window: bool | None = None
    cost: float | None = None


class Actual(Struct, frozen=True):
    """What a batch took in the end."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    device_seconds: float
    seconds: float | None = None


class Estimate(Struct, frozen=True):
    """What a batch was expected to cost when it was planned, beside what it took."""

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


class Shards(Struct, frozen=True):
    """How far results are written to a place of the caller's."""

    uri: str
    format: str
    shards_written: int = 0
    shards_total: int | None = None
    rows_written: int = 0


class BatchExtension(Struct, frozen=True):
    """What Tidemill adds to a batch under the key ``tidemill``."""

    output: Shards | None = None
    paused: bool = False
    waiting_for: Wait | None = None
    retry_of: str | None = None
    progress: Progress | None = None
    plan: dict[str, Any] | None = None
    estimate: Estimate | None = None
    report_file_id: str | None = None


class Batch(Struct, frozen=True):
    """A batch."""

    id: str
    status: str
    endpoint: str
    input_file_id: str
    created_at: int
    completion_window: str = "24h"
    model: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: BatchProblems | None = None
    request_counts: Counts = field(default_factory=Counts)
    usage: Usage | None = None
    metadata: dict[str, str] | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    expired_at: int | None = None
    expires_at: int | None = None
    tidemill: BatchExtension | None = None

    @property
    def finished(self) -> bool:
        """Whether its status can no longer change."""
        return self.status in TERMINAL_STATUSES

    @property
    def paused(self) -> bool:
        """Whether no more of it is started until it is resumed."""
        return self.tidemill is not None and self.tidemill.paused

    @property
    def waiting_for(self) -> Wait | None:
        """What keeps it from going on, if anything does."""
        return None if self.tidemill is None else self.tidemill.waiting_for

    @property
    def estimate(self) -> Estimate | None:
        """What it was expected to cost, once it is planned."""
        return None if self.tidemill is None else self.tidemill.estimate

    @property
    def shards(self) -> Shards | None:
        """How far its results are written elsewhere, if they are to be."""
        return None if self.tidemill is None else self.tidemill.output

    @property
    def retry_of(self) -> str | None:
        """The batch whose failed lines this one runs."""
        return None if self.tidemill is None else self.tidemill.retry_of


class BatchPage(Struct, frozen=True):
    """One page of a list of batches."""

    data: list[Batch]
    has_more: bool = False
    last_id: str | None = None


class ModelList(Struct, frozen=True):
    """The models."""

    data: list[Model]


class Problem(Struct, frozen=True):
    """The inside of the error envelope."""

    message: str = "The service gave no reason."
    type: str | None = None
    param: str | None = None
    code: str | None = None


class Envelope(Struct, frozen=True):
    """How the service reports an error."""

    error: Problem
