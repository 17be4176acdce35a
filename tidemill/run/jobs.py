"""One job from the user's side: upload, create, follow, and sum up."""

import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self

from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.sources import Kind, Source, shown
from tidemill.client.client import Client
from tidemill.client.shapes import Batch
from tidemill.client.uploads import Upload
from tidemill.errors import (
    ApiError,
    ClientError,
    InputError,
    Interrupted,
    ResultsNotWritten,
    StartFailed,
    TidemillError,
)
from tidemill.run.files import STDOUT
from tidemill.run.formats import OnInvalid
from tidemill.run.identity import sent_unchanged
from tidemill.run.outputs import write_results
from tidemill.run.progress import Reporter, with_progress
from tidemill.run.session import Session
from tidemill.run.summary import Summary, summarize
from tidemill.run.targets import Target
from tidemill.run.uploads import Table, upload_of

MAX_METADATA = 512
RUN_MARK = {"tidemill_run": "1"}
BATCHES_LOOKED_AT = 500
LONGEST_WINDOW = "365d"  # the service allows no more
NOT_CANCELLABLE = "batch_not_cancellable"  # the code for a batch that has ended


@dataclass(frozen=True, slots=True)
class Followed:
    """A batch that has finished, and whether Ctrl-C made it so."""

    batch: Batch
    interrupted: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What ``tidemill run`` ends with.

    Attributes:
        rest_by: the commands that run what Ctrl-C left; empty where nothing is left.
    """

    batch: Batch
    summary: Summary
    interrupted: bool
    rest_by: str = ""


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
        ResultsNotWritten: they are kept, or the service went away before the job had ended; the
            message says how to get at them.
        Interrupted: before the job had begun, or while its results were written.
        TidemillError: the job could not be run.
    """
    started = time.monotonic()
    try:
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
    except KeyboardInterrupt:
        raise Interrupted("Interrupted before the job had begun; nothing was run.") from None
    try:
        followed = follow(session, batch, reporter)
    except ClientError as error:
        how = how_to_fetch(session, batch, source, target)
        raise ResultsNotWritten(
            f"{error}\n{batch.id} may go on. To fetch its results, once it has ended: {how}"
        ) from error
    try:
        written = write_results(session.client, followed.batch, source, target)
        summary = summarize(session.client, followed.batch, written, started)
    except (TidemillError, BrokenPipeError) as error:
        joined = None if isinstance(error, InputError) else source
        how = how_to_fetch(session, batch, joined, target)
        raise ResultsNotWritten(
            f"{_why(error)}\nThe results are kept. To fetch them: {how}"
        ) from error
    except KeyboardInterrupt:
        how = how_to_fetch(session, batch, source, target)
        raise Interrupted(
            "Interrupted while the results were written.\n"
            f"The results are kept. To fetch them: {how}"
        ) from None
    left = followed.interrupted and followed.batch.request_counts.failed > 0
    rest_by = _commands(session, ["retry", batch.id]) if left else ""
    return Outcome(followed.batch, summary, followed.interrupted, rest_by)


def _why(error: Exception) -> str:
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
    fetch = ["fetch", batch.id, "--format", target.format.value]
    rows = source is not None and source.kind is not Kind.REQUESTS
    if source is not None and rows and shown(source.path.name) == source.name:
        fetch += ["--join", str(source.path)]
        fetch += ["--column", source.column] if source.column else []
        fetch += ["--input-format", source.kind.value] if source.asked else []
    if target.columns.answer != "answer":
        fetch += ["--answer-column", target.columns.answer]
    if target.output == STDOUT and target.errors is not None:
        # Beside standard output, fetch leaves failed rows out unless it is told where they go.
        fetch += ["--errors", str(target.errors)]
    return _commands(session, fetch) + ("" if target.output == STDOUT else " -o FILE")


def _commands(session: Session, words: list[str]) -> str:
    """A command for the service of this session, with the one that starts it where it has ended."""
    home = ["--home", str(session.home)]
    command = shlex.join(["tidemill", *words, *home])
    if not session.own:
        return command
    return f"{shlex.join(['tidemill', 'up', *home])}, and beside it {command}"


def submit(
    client: Client,
    order: Order,
    reporter: Reporter,
    *,
    on_invalid: OnInvalid,
    window: str,
    metadata: Mapping[str, str] | None = None,
    written: Mapping[str, Any] | None = None,
) -> Batch:
    """Upload an input and create its batch, which may take as long as ``window`` says.

    Args:
        written: what is said of results that the service is to write elsewhere too.

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
        options={"on_invalid": on_invalid, **(written or {})},
    )


def submit_table(
    client: Client,
    table: Table,
    reporter: Reporter,
    *,
    on_invalid: OnInvalid,
    window: str,
    written: Mapping[str, Any] | None = None,
) -> Batch:
    """Create the batch of a table; one of this machine is uploaded as it is.

    Args:
        written: as in `submit`.

    Raises:
        InputError: the file cannot be read.
        ClientError: the service refused.
    """
    options: dict[str, Any] = {"on_invalid": on_invalid, **table.options, **(written or {})}
    file_id = None
    if isinstance(table.given, str):
        options["input_uri"] = table.given
    else:
        reporter.say("Uploading")
        if not table.given.is_file():
            raise InputError(f"{table.given} is no file; --key needs one, or a URI.")
        file_id = client.upload(with_progress(Upload.from_path(table.given), reporter)).id
    return client.create_batch(
        file_id,
        table.endpoint,
        completion_window=window,
        metadata={"input": shown(str(table.given))[:MAX_METADATA]},
        options=options,
    )


def follow(session: Session, batch: Batch, reporter: Reporter) -> Followed:
    """Show a batch until it has finished. Ctrl-C cancels it; a second one leaves at once.

    Raises:
        ClientError: the service went away, or refused.
        StartFailed: the engine does not start; the batch is cancelled then, not left waiting.
    """
    client = session.client
    try:
        for seen in client.watch(batch.id, session.pause):
            reporter.update(seen)
            batch = seen
            if not batch.finished:
                session.check(batch.model)
        return Followed(batch)
    except StartFailed:
        # Why it does not start is what counts, whatever becomes of the batch.
        with suppress(ClientError):
            client.cancel(batch.id)
        raise
    except KeyboardInterrupt:
        reporter.say("Cancelling; what is done is kept (Ctrl-C again leaves at once)")
    try:
        client.cancel(batch.id)
    except ApiError as error:
        if error.code != NOT_CANCELLABLE:
            raise
        # It has ended in between, and is as good as any other that has.
    for seen in client.watch(batch.id, session.pause):
        reporter.update(seen)
        batch = seen
    return Followed(batch, interrupted=True)
