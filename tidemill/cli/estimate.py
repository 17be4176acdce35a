"""``tidemill estimate``: what a job will cost and when it will be done, before it is run."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill import terminal
from tidemill.cli import options
from tidemill.cli.ranges import at_least
from tidemill.exits import ExitCode
from tidemill.run.formats import Endpoint, InputFormat

if TYPE_CHECKING:
    from tidemill.client.shapes import Batch, Estimate
    from tidemill.run.session import Session

PAST_JOBS = 50


def estimate(
    input: Annotated[
        Path | None,
        typer.Argument(metavar="[INPUT]", help="The input file; '-' reads standard input."),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample",
            callback=at_least(1),
            metavar="<1 or more>",
            help="Run so many rows first, and learn from them how long answers are.",
        ),
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", help="When it is to be done: 06:00, 2h, 2026-11-28T06:00."),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(
            "--price-per-hour",
            envvar="TIDEMILL_DEVICE_PRICE_PER_HOUR",
            callback=at_least(0.0),
            metavar="<0 or more>",
            help="What an hour of one device costs, in any currency.",
        ),
    ] = None,
    history: Annotated[
        bool,
        typer.Option("--history", help="Show past jobs: what was expected, and what came."),
    ] = False,
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            callback=at_least(1),
            metavar="<1 or more>",
            help="Batches that --history looks at.",
        ),
    ] = PAST_JOBS,
    model: options.Model = None,
    column: options.Column = None,
    template: options.Template = None,
    template_file: options.TemplateFile = None,
    input_format: options.InputFormatOption = InputFormat.AUTO,
    system: options.System = None,
    endpoint: options.EndpointOption = Endpoint.CHAT,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what a job would cost and when it would be done, without running it.

    Rows, prompt tokens, duplicates and shared prefixes are counted exactly. How long answers are is
    known from earlier jobs of the same kind, from a sample that is really run (--sample), or only
    from the limits; times are learned from finished jobs, and a roofline where the model never ran.
    Each figure says from what it comes. The options of requests are those of run.

    Exit codes of its own: 3 some rows cannot be run; 4 none can; 6 the deadline will not be met.

    Examples:

        tidemill estimate prompts.jsonl --max-tokens 64

        tidemill estimate reviews.parquet --column review --sample 50 --deadline 06:00

        tidemill estimate prompts.txt --sample 50 --price-per-hour 2.5 --json | jq .estimate.volumes

        tidemill estimate --history
    """
    from storage.datasets.request_lines import RequestOptions
    from tidemill.cli.render import print_problems
    from tidemill.cli.templates import template_of
    from tidemill.errors import InputError, UsageError
    from tidemill.estimates.ask import ask
    from tidemill.run.checks import check_options
    from tidemill.run.empty import is_empty
    from tidemill.run.inputs import open_input
    from tidemill.run.progress import reporter

    if history:
        if input is not None:
            raise UsageError("--history shows past jobs; leave the input out.")
        _show_past(url, api_key, home, limit=limit, as_json=as_json)
        return
    if input is None:
        raise UsageError("Name an input, or --history for past jobs.")
    until = _deadline(deadline)
    sampling = options.sampling_of(max_tokens, temperature, top_p, seed, stop)
    made_by = template_of(template, template_file, column=column, endpoint=endpoint.path)
    request = RequestOptions(model, system, sampling, endpoint.path, template=made_by)
    check_options(request)
    with open_input(input, column, home, input_format.kind, made_by) as source:
        if is_empty(source):
            raise InputError(f"{source.name} has no rows; there is nothing to estimate.")
        with reporter(terminal.console(), quiet=quiet) as report:
            if not quiet:
                report.note(source.described)
            report.say("Starting")
            with _service(url, api_key, home) as session:
                asked = ask(session, source, request, report, sample=sample)
    if asked.batch.estimate is None:
        print_problems(asked.batch)
        raise typer.Exit(ExitCode.BATCH_FAILED)
    sample_id = asked.sample.id if asked.sample else None
    found = _print(asked.batch, source.name, sample_id, until, price_per_hour, as_json)
    if not quiet:
        _say_bad_rows(asked.batch, found)
    raise typer.Exit(_code(found, until))


def _show_past(
    url: str | None, api_key: str | None, home: Path | None, *, limit: int, as_json: bool
) -> None:
    """Print what the latest batches were expected to cost, beside what they took."""
    from tidemill.cli.render import print_json, print_table
    from tidemill.estimates.past import HEADERS, past_jobs

    with _service(url, api_key, home) as session:
        past = past_jobs(session.client.batches(limit))
    if as_json:
        print_json(past)
    else:
        print_table(HEADERS, [job.cells for job in past])


@contextmanager
def _service(url: str | None, api_key: str | None, home: Path | None) -> "Iterator[Session]":
    """The service that is named, or one of the home folder for as long as this lasts."""
    from tidemill.run.session import Session, connect, own_service, settings_for

    if url is None:
        with own_service(home, api_key) as session:
            yield session
        return
    with connect(url, api_key, home) as client:
        yield Session(client, settings_for(home).storage.home)


def _deadline(text: str | None) -> datetime | None:
    from tidemill.errors import UsageError
    from tidemill.estimates.deadline import parse_deadline

    if text is None:
        return None
    try:
        return parse_deadline(text, datetime.now().astimezone())
    except ValueError as error:
        raise UsageError(f"--deadline: {error}") from error


def _print(
    batch: "Batch",
    name: str,
    sample_id: str | None,
    until: datetime | None,
    price_per_hour: float | None,
    as_json: bool,
) -> "Estimate":
    """Print the estimate, at the price; gives it back."""
    from tidemill.cli.render import print_json, print_table
    from tidemill.estimates.report import HEADERS, Told, meets, priced, rows_of

    assert batch.estimate is not None
    found = priced(batch.estimate, price_per_hour)
    if not as_json:
        print_table(HEADERS, list(rows_of(found, until)))
        return found
    in_time = None if until is None else [meets(volume, until) for volume in found.volumes]
    second = None if until is None else int(until.timestamp())
    print_json(Told(name, batch.id, found, sample_id, second, in_time))
    return found


def _say_bad_rows(batch: "Batch", found: "Estimate") -> None:
    if not found.invalid_rows:
        return
    terminal.say(f"{found.invalid_rows:,} of {found.rows:,} rows cannot be run:")
    problems = batch.errors.data if batch.errors else []
    for problem in problems[:5]:
        terminal.say(f"  row {problem.line}: {problem.message or ''} [{problem.code}]")
    if found.invalid_rows > 5:
        terminal.say(f"  … and {found.invalid_rows - 5:,} more")


def _code(found: "Estimate", until: datetime | None) -> ExitCode:
    from tidemill.estimates.report import meets

    if found.invalid_rows == found.rows:
        return ExitCode.BATCH_FAILED
    if until is not None and not meets(found.volumes[0], until):
        return ExitCode.LATE
    return ExitCode.LINES_FAILED if found.invalid_rows else ExitCode.OK
