"""``status``, ``watch``, ``fetch`` and ``list``: batches of a running service."""

import shlex
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from tidemill import terminal
from tidemill.cli import options
from tidemill.cli.ranges import at_least
from tidemill.exits import of_batch
from tidemill.run.formats import InputFormat


def status(
    batch_id: options.BatchId,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """Show a batch as it is now.

    Examples:

        tidemill status batch_01k4

        tidemill status batch_01k4 --json | jq .request_counts
    """
    from tidemill.cli.render import describe, print_json, print_table
    from tidemill.run.session import connect

    with connect(url, api_key, home) as client:
        batch = client.batch(batch_id)
    if as_json:
        print_json(batch)
    else:
        print_table(("field", "value"), describe(batch))


def watch(
    batch_id: options.BatchId,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show a batch's progress until it has finished. Ctrl-C leaves the batch running.

    Examples:

        tidemill watch batch_01k4
    """
    from tidemill.cli.render import print_json, print_problems, print_summary
    from tidemill.errors import Interrupted
    from tidemill.run.outputs import Written
    from tidemill.run.progress import reporter
    from tidemill.run.session import connect
    from tidemill.run.summary import summarize

    started = time.monotonic()
    with connect(url, api_key, home) as client:
        try:
            with reporter(terminal.console(), quiet=quiet) as report:
                for batch in client.watch(batch_id):
                    report.update(batch)
        except KeyboardInterrupt:
            again = f"The batch goes on. To watch it again: tidemill watch {batch_id}"
            raise Interrupted(again) from None
        if batch.status == "failed":
            print_problems(batch)
        elif not quiet:
            print_summary(summarize(client, batch, Written(), started))
    if as_json:
        print_json(batch)
    raise typer.Exit(of_batch(batch.status, batch.request_counts.failed))


def fetch(
    batch_id: options.BatchId,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            parser=options.named_output,
            metavar="<path>",
            help="The output file, or a folder for it; '-' is standard output.",
        ),
    ] = Path("-"),
    errors: options.Errors = None,
    format: options.OutputFormat = None,
    join: Annotated[
        Path | None,
        typer.Option("--join", help="The plain input of the batch, to put the answers beside."),
    ] = None,
    column: options.Column = None,
    input_format: options.InputFormatOption = InputFormat.AUTO,
    answer_column: options.ResultColumn = "answer",
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
) -> None:
    """Download a finished batch's results.

    They go to standard output, where no file is named. Failed lines go to the errors file beside
    the output; beside standard output they are fetched only if --errors names a file. Parquet has
    them in its column error.

    Examples:

        tidemill fetch batch_01k4 > answers.jsonl

        tidemill fetch batch_01k4 --join reviews.parquet -o answered.parquet
    """
    from storage.datasets.values.sources import Kind
    from tidemill.cli.render import print_problems, say_written
    from tidemill.errors import InputError, NotFinished, ResultsNotWritten, TidemillError
    from tidemill.run.files import STDOUT
    from tidemill.run.inputs import open_input
    from tidemill.run.outputs import write_results
    from tidemill.run.session import connect
    from tidemill.run.targets import check_target, plan_target

    with (
        connect(url, api_key, home) as client,
        (
            open_input(join, column, home, input_format.kind, joined=True)
            if join
            else nullcontext()
        ) as source,
    ):
        batch = client.batch(batch_id)
        if not batch.finished:
            raise NotFinished(f"{batch.id} is {batch.status}; first: tidemill watch {batch.id}")
        target = plan_target(
            Path(f"{batch.id}.jsonl"),
            source.kind if source else Kind.REQUESTS,
            output=output,
            errors=errors,
            format=format,
            answer_column=answer_column,
        )
        if output == STDOUT and errors is None:
            target = replace(target, errors=None)
        check_target(target, join if source and source.path == join else None)
        try:
            written = write_results(client, batch, source, target)
        except TidemillError as error:
            joined = None if isinstance(error, InputError) else join
            asked = None if input_format is InputFormat.AUTO else input_format.value
            again = _fetch_again(
                batch.id,
                {
                    "--output": None if output == STDOUT else output,
                    "--errors": errors,
                    "--format": target.format.value,
                    "--join": joined,
                    "--column": column if joined else None,
                    "--input-format": asked if joined else None,
                    "--answer-column": answer_column if answer_column != "answer" else None,
                    "--url": url,
                    "--home": home,
                },
            )
            message = f"{error}\nThe results are kept. To fetch them: {again}"
            raise ResultsNotWritten(message) from error
    if batch.status == "failed":
        print_problems(batch)
    else:
        say_written(batch, written)
    raise typer.Exit(of_batch(batch.status, batch.request_counts.failed))


def _fetch_again(batch_id: str, options: Mapping[str, object]) -> str:
    """The command that fetches a batch's results, with the options that were given."""
    given = ((name, str(value)) for name, value in options.items() if value is not None)
    return shlex.join(["tidemill", "fetch", batch_id, *chain.from_iterable(given)])


def list_batches(
    limit: Annotated[
        int,
        typer.Option(
            "--limit",
            "-n",
            callback=at_least(1),
            metavar="<1 or more>",
            help="How many, newest first.",
        ),
    ] = 20,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """List batches, newest first.

    Examples:

        tidemill list

        tidemill list -n 100 --json | jq -r '.[].id'
    """
    from tidemill.cli.render import BATCH_HEADERS, batch_row, print_json, print_table
    from tidemill.run.session import connect

    with connect(url, api_key, home) as client:
        batches = list(client.batches(limit))
    if as_json:
        print_json(batches)
    else:
        print_table(BATCH_HEADERS, [batch_row(batch) for batch in batches])
