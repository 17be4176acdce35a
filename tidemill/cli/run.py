"""``tidemill run`` and ``tidemill submit``: a file becomes a job."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from tidemill.cli import options
from tidemill.exits import ExitCode, of_batch
from tidemill.run.formats import Endpoint, OnInvalid

if TYPE_CHECKING:
    from tidemill.inputs import Source

STDIN = Path("-")


def run(
    input: options.Input,
    output: options.Output = None,
    errors: options.Errors = None,
    format: options.OutputFormat = None,
    model: options.Model = None,
    column: options.Column = None,
    system: options.System = None,
    endpoint: options.EndpointOption = Endpoint.CHAT,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    answer_column: options.AnswerColumn = "answer",
    home: options.Home = None,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a whole job in one command: upload, plan, run, fetch.

    The input is told by its content: batch requests, lines of {"prompt"} or {"messages"}, plain
    text with one prompt a line, each of them perhaps gzipped, or Parquet. Bad lines do not stop the
    others. Ctrl-C or SIGTERM cancels the job and keeps what is done; a second one leaves at once.

    Examples:

        tidemill run prompts.txt

        tidemill run questions.jsonl --system "Answer in one word." --max-tokens 8 -o answers.jsonl

        tidemill run reviews.parquet --column review --temperature 0

        cat prompts.txt | tidemill run - -o - | jq .answer
    """
    from tidemill.cli.render import print_json, print_outcome, stderr
    from tidemill.errors import UsageError
    from tidemill.requests import RequestOptions
    from tidemill.run.files import STDOUT
    from tidemill.run.jobs import Order, run_whole
    from tidemill.run.progress import reporter
    from tidemill.run.session import own_service
    from tidemill.run.targets import check_target, plan_target
    from tidemill.serve.signals import interruptible

    if as_json and output == STDOUT:
        raise UsageError("--json and '-o -' both want standard output; choose one.")
    sampling = options.sampling_of(max_tokens, temperature, top_p, seed, stop)
    request = RequestOptions(model, system, sampling, endpoint.path, answer_column)
    with interruptible(), opened(input, column, home) as source:
        order = Order.of(source, request)
        target = plan_target(
            input if source.path == input else Path(source.name),
            source.kind,
            output=output,
            errors=errors,
            format=format,
            answer_column=answer_column,
        )
        check_target(target, input if source.path == input else None)
        with reporter(stderr(), quiet=quiet) as report:
            report.say("Starting")
            with own_service(home, api_key) as session:
                outcome = run_whole(session, source, order, target, report)
    print_outcome(outcome, quiet=quiet)
    if as_json:
        print_json(outcome.summary)
    raise typer.Exit(ExitCode.INTERRUPTED if outcome.interrupted else of_batch(outcome.batch))


def submit(
    input: options.Input,
    model: options.Model = None,
    column: options.Column = None,
    system: options.System = None,
    endpoint: options.EndpointOption = Endpoint.CHAT,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    on_invalid: Annotated[
        OnInvalid,
        typer.Option("--on-invalid", help="What bad lines do: fail the batch, or be skipped."),
    ] = OnInvalid.FAIL,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Send a job to a running service and print the batch's id.

    Understands the same inputs as run.

    Examples:

        id=$(tidemill submit requests.jsonl)

        tidemill watch $id && tidemill fetch $id -o answers.jsonl
    """
    from tidemill.cli.render import print_json, stderr
    from tidemill.requests import RequestOptions
    from tidemill.run import jobs
    from tidemill.run.progress import reporter
    from tidemill.run.session import connect

    sampling = options.sampling_of(max_tokens, temperature, top_p, seed, stop)
    request = RequestOptions(model, system, sampling, endpoint.path)
    with opened(input, column, home) as source:
        order = jobs.Order.of(source, request)
        with (
            connect(url, api_key, home) as client,
            reporter(stderr(), quiet=quiet) as report,
        ):
            batch = jobs.submit(client, order, report, on_invalid=on_invalid)
    if as_json:
        print_json(batch)
    else:
        typer.echo(batch.id)


@contextmanager
def opened(path: Path, column: str | None, home: Path | None) -> Iterator["Source"]:
    """The input, told by its content; what can be read only once through a temporary copy."""
    from tidemill.inputs import Limits, open_source
    from tidemill.run.session import settings_for

    settings = settings_for(home)
    limits = Limits(settings.api.max_line_bytes, settings.api.max_decoded_bytes)
    if path != STDIN and (path.is_file() or path.is_dir() or not path.exists()):
        yield open_source(path, column=column, limits=limits)
        return
    import tempfile

    with tempfile.NamedTemporaryFile(prefix="tidemill-") as copy:
        name = _copy(path, copy.file)
        yield open_source(Path(copy.name), name=name, column=column, limits=limits)


def _copy(path: Path, destination: IO[bytes]) -> str:
    """Read a pipe to its end; returns what to call it."""
    import shutil

    from tidemill.errors import InputError

    # The shell's <(command) is /dev/fd/63 or so, which says nothing.
    name = "stdin" if path == STDIN else "pipe" if path.name.isdigit() else path.name
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as pipe:
            shutil.copyfileobj(pipe, destination)
        destination.flush()
    except OSError as error:
        # Also the end of a full disk: a pipe is kept in a temporary file while the command runs.
        raise InputError(f"{name} cannot be read to its end: {error.strerror}.") from error
    return name
