"""One job from the user's side: upload, create, follow, and sum up."""

import shlex
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from msgspec import Struct

from storage.datasets.readers.results import read_results
from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.sources import Kind, Source, shown
from tidemill.client.client import Client
from tidemill.client.shapes import Batch, Usage
from tidemill.client.uploads import Upload
from tidemill.errors import ApiError, InputError, ResultsNotWritten, StartFailed, TidemillError
from tidemill.exits import ExitCode
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.files import STDOUT
from tidemill.run.formats import OnInvalid
from tidemill.run.identity import sent_unchanged
from tidemill.run.outputs import Written, write_results
from tidemill.run.progress import Reporter, with_progress
from tidemill.run.session import Session
from tidemill.run.targets import Target
from tidemill.run.uploads import upload_of

MAX_METADATA = 512
MAX_FAILURES_READ = 100_000
RUN_MARK = {"tidemill_run": "1"}
BATCHES_LOOKED_AT = 500
LONGEST_WINDOW = "365d"  # the service allows no more


class Summary(Struct, frozen=True):
    """How a job went. ``tokens_per_second`` counts prompt and output over the time of running."""

    batch_id: str
    status: str
    rows: int
    answered: int
    failed: int
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    tokens_per_second: float | None
    prefix_cache_share: float
    output: str | None
    errors: str | None
    failures: dict[str, int]


@dataclass(frozen=True, slots=True)
class Followed:
    """A batch that has finished, and whether Ctrl-C made it so."""

    batch: Batch
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ``tidemill run`` ends with."""

    batch: Batch
    summary: Summary
    interrupted: bool


@dataclass(frozen=True, slots=True)
class Order:
    """What to send for an input: its upload and the endpoint it is for."""

    source: Source
    upload: Upload
    endpoint: str

    @classmethod
    def of(cls, source: Source, options: RequestOptions) -> Self:
        """The order for a source; `UsageError` where the options do not fit it."""
        upload = upload_of(source, options)
        endpoint = source.endpoint if source.kind is Kind.REQUESTS else options.endpoint
        return cls(source, upload, endpoint)


def run_whole(
    session: Session, source: Source, order: Order, target: Target, reporter: Reporter
) -> Outcome:
    """A whole job: submit, follow, fetch; bad lines are skipped.

    Raises:
        ResultsNotWritten: they are kept; the message says how to get at them.
        TidemillError: the job could not be run.
    """
    started = time.monotonic()
    if session.own:
        cancel_left_over(session.client, reporter)
    batch = submit(
        session.client,
        order,
        reporter,
        on_invalid=OnInvalid.SKIP,
        window=LONGEST_WINDOW,
        metadata=RUN_MARK,
    )
    followed = follow(session, batch, reporter)
    try:
        written = write_results(session.client, followed.batch, source, target)
    except (TidemillError, BrokenPipeError, KeyboardInterrupt) as error:
        joined = None if isinstance(error, InputError) else source
        how = how_to_fetch(session, batch, joined, target)
        interrupted = isinstance(error, KeyboardInterrupt)
        raise ResultsNotWritten(
            f"{_why(error)}\nThe results are kept. To fetch them: {how}",
            ExitCode.INTERRUPTED if interrupted else ExitCode.FAILURE,
        ) from error
    summary = summarize(session.client, followed.batch, written, started)
    return Outcome(followed.batch, summary, followed.interrupted)


def _why(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted while the results were written."
    if isinstance(error, BrokenPipeError):
        return "Nobody reads standard output any more."
    return str(error)


def cancel_left_over(client: Client, reporter: Reporter) -> None:
    """Cancel the batches of earlier runs that were killed, which would run before this job's.

    Only for a service that nobody else uses. Lines that are done stay fetchable.
    """
    for batch in client.batches(BATCHES_LOOKED_AT):
        # A retry has the first batch's metadata, and somebody asked for it by name.
        left_over = RUN_MARK.items() <= (batch.metadata or {}).items() and batch.retry_of is None
        if not left_over or batch.status not in ("validating", "in_progress"):
            continue
        try:
            client.cancel(batch.id)
        except ApiError:
            # It ended in between.
            continue
        reporter.note(
            f"{batch.id}, left by a run that was killed, is cancelled; what it has done is kept."
        )


def how_to_fetch(session: Session, batch: Batch, source: Source | None, target: Target) -> str:
    """The commands that write a finished run's results once more.

    Args:
        source: the input to join them to, where it is still the one that was sent.
    """
    home = ["--home", str(session.home)]
    fetch = ["tidemill", "fetch", batch.id, *home, "--format", target.format.value]
    rows = source is not None and source.kind is not Kind.REQUESTS
    if source is not None and rows and shown(source.path.name) == source.name:
        fetch += ["--join", str(source.path)]
        fetch += ["--column", source.column] if source.column else []
        fetch += ["--input-format", source.kind.value] if source.asked else []
    if target.columns.answer != "answer":
        fetch += ["--answer-column", target.columns.answer]
    fetched = shlex.join(fetch) + ("" if target.output == STDOUT else " -o FILE")
    if not session.own:
        return fetched
    return f"{shlex.join(['tidemill', 'up', *home])}, and beside it {fetched}"


def submit(
    client: Client,
    order: Order,
    reporter: Reporter,
    *,
    on_invalid: OnInvalid,
    window: str,
    metadata: Mapping[str, str] | None = None,
) -> Batch:
    """Upload an input and create its batch, which may take as long as ``window`` says.

    Raises:
        InputError: a row of the input cannot be sent.
        ClientError: the service refused.
    """
    reporter.say("Uploading")
    name = order.source.name[:MAX_METADATA]
    with sent_unchanged(order.source) as identity:
        file = client.upload(with_progress(order.upload, reporter))
    return client.create_batch(
        file.id,
        order.endpoint,
        completion_window=window,
        metadata={"input": name, **identity, **(metadata or {})},
        options={"on_invalid": on_invalid},
    )


def follow(session: Session, batch: Batch, reporter: Reporter) -> Followed:
    """Show a batch until it has finished. Ctrl-C cancels it; a second one leaves at once.

    Raises:
        StartFailed: the engine does not start; the batch is cancelled then, not left waiting.
    """
    client = session.client
    try:
        for seen in client.watch(batch.id):
            reporter.update(seen)
            batch = seen
            if not batch.finished:
                session.check(batch.model)
        return Followed(batch)
    except StartFailed:
        client.cancel(batch.id)
        raise
    except KeyboardInterrupt:
        reporter.say("Cancelling; what is done is kept (Ctrl-C again leaves at once)")
    client.cancel(batch.id)
    for seen in client.watch(batch.id):
        reporter.update(seen)
        batch = seen
    return Followed(batch, interrupted=True)


def failures_of(client: Client, batch: Batch) -> Counter[str]:
    """How many lines failed by the code of their error; empty where there are very many.

    Raises:
        ClientError: the error file cannot be read.
    """
    if batch.error_file_id is None or batch.request_counts.failed > MAX_FAILURES_READ:
        return Counter()
    with dataset_errors(), client.download(batch.error_file_id) as pieces:
        return Counter(
            result.error.code or "unknown" for result in read_results(pieces) if result.error
        )


def summarize(client: Client, batch: Batch, written: Written, started: float) -> Summary:
    """Sum a finished job up; ``started`` is a reading of `time.monotonic`."""
    counts, usage = batch.request_counts, batch.usage or Usage()
    progress = batch.tidemill.progress if batch.tidemill else None
    return Summary(
        batch_id=batch.id,
        status=batch.status,
        rows=counts.total,
        answered=counts.completed,
        failed=counts.failed,
        seconds=round(time.monotonic() - started, 3),
        prompt_tokens=usage.input_tokens,
        cached_tokens=usage.input_tokens_details.cached_tokens,
        output_tokens=usage.output_tokens,
        tokens_per_second=progress.tokens_per_second if progress else None,
        prefix_cache_share=round(usage.cached_share, 4),
        output=shown(str(written.output)) if written.output else None,
        errors=shown(str(written.errors)) if written.errors else None,
        failures=dict(failures_of(client, batch).most_common()),
    )
