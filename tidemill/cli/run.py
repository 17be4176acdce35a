"""``tidemill run`` and ``tidemill submit``: a file becomes a job."""

from pathlib import Path
from typing import Annotated

import typer

from tidemill.cli import options
from tidemill.exits import ExitCode, of_batch
from tidemill.run.formats import Endpoint, InputFormat, OnInvalid


def run(
    input: options.Input,
    output: options.Output = None,
    errors: options.Errors = None,
    format: options.OutputFormat = None,
    model: options.Model = None,
    column: options.Column = None,
    input_format: options.InputFormatOption = InputFormat.AUTO,
    system: options.System = None,
    endpoint: options.EndpointOption = Endpoint.CHAT,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    answer_column: options.ResultColumn = "answer",
    home: options.Home = None,
    api_key: options.ApiKey = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a whole job in one command: upload, plan, run, fetch.

    The input is told by its content: batch requests, lines of {"prompt"} or {"messages"}, plain
    text with one prompt a line, CSV or TSV, each of them perhaps gzipped, or Parquet. What it is
    read as is said first; --input-format settles it. Bad lines do not stop the others. Ctrl-C or
    SIGTERM cancels the job and keeps what is done; a second one leaves at once.

    Examples:

        tidemill run prompts.txt

        tidemill run questions.jsonl --system "Answer in one word." --max-tokens 8 -o answers.jsonl

        tidemill run reviews.parquet --column review --temperature 0

        tidemill run table.csv --column question

        cat prompts.txt | tidemill run - -o - | jq .answer
    """
    from storage.datasets.request_lines import RequestOptions
    from tidemill.cli.render import print_json, print_outcome, stderr
    from tidemill.errors import UsageError
    from tidemill.run.empty import is_empty, without_rows
    from tidemill.run.files import STDOUT
    from tidemill.run.inputs import open_input
    from tidemill.run.interrupts import interruptible
    from tidemill.run.jobs import Order, run_whole
    from tidemill.run.progress import reporter
    from tidemill.run.session import own_service
    from tidemill.run.targets import check_target, plan_target

    if as_json and output == STDOUT:
        raise UsageError("--json and '-o -' both want standard output; choose one.")
    sampling = options.sampling_of(max_tokens, temperature, top_p, seed, stop)
    request = RequestOptions(model, system, sampling, endpoint.path, answer_column)
    with (
        interruptible(),
        open_input(input, column, home, input_format.kind) as source,
    ):
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
            if not quiet:
                report.note(source.described)
            if is_empty(source):
                outcome = without_rows(source, target)
            else:
                report.say("Starting")
                with own_service(home, api_key) as session:
                    outcome = run_whole(session, source, order, target, report)
    print_outcome(outcome, quiet=quiet)
    if as_json:
        print_json(outcome.summary)
    if outcome.interrupted:
        raise typer.Exit(ExitCode.INTERRUPTED)
    raise typer.Exit(of_batch(outcome.batch.status, outcome.batch.request_counts.failed))


def submit(
    input: options.Input,
    model: options.Model = None,
    column: options.Column = None,
    input_format: options.InputFormatOption = InputFormat.AUTO,
    system: options.System = None,
    endpoint: options.EndpointOption = Endpoint.CHAT,
    max_tokens: options.MaxTokens = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    seed: options.Seed = None,
    stop: options.Stop = None,
    window: options.Window = "24h",
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
    from storage.datasets.request_lines import RequestOptions
    from tidemill.cli.render import print_json, stderr
    from tidemill.errors import InputError
    from tidemill.run import jobs
    from tidemill.run.empty import is_empty
    from tidemill.run.inputs import open_input
    from tidemill.run.progress import reporter
    from tidemill.run.session import connect

    sampling = options.sampling_of(max_tokens, temperature, top_p, seed, stop)
    request = RequestOptions(model, system, sampling, endpoint.path)
    with open_input(input, column, home, input_format.kind) as source:
        if is_empty(source):
            raise InputError(f"{source.name} has no rows; there is nothing to submit.")
        order = jobs.Order.of(source, request)
        with (
            connect(url, api_key, home) as client,
            reporter(stderr(), quiet=quiet) as report,
        ):
            if not quiet:
                report.note(source.described)
            batch = jobs.submit(client, order, report, on_invalid=on_invalid, window=window)
    if as_json:
        print_json(batch)
    else:
        typer.echo(batch.id)
