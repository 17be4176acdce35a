"""``cancel``, ``pause``, ``resume`` and ``retry``: what can be done to a batch that is there."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tidemill import terminal
from tidemill.cli import options
from tidemill.cli.ranges import between, completion_window

if TYPE_CHECKING:
    from tidemill.client.client import Client
    from tidemill.client.shapes import Batch


def cancel(
    batch_id: options.BatchId,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """Ask a batch to stop. Answers that are there already are kept.

    Examples:

        tidemill cancel batch_01k4
    """
    batch = _asked(lambda client: client.cancel(batch_id), url, api_key, home)
    _print(batch, batch.status, as_json)


def pause(
    batch_id: options.BatchId,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """Start nothing more of a batch. What is running runs to its end, and time goes on.

    The batch still expires at the end of its completion window, and can be cancelled.

    Examples:

        tidemill pause batch_01k4

        tidemill resume batch_01k4
    """
    batch = _asked(lambda client: client.pause(batch_id), url, api_key, home)
    _print(batch, "paused", as_json)


def resume(
    batch_id: options.BatchId,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """Go on with a paused batch. Nothing that is done is computed again.

    Examples:

        tidemill resume batch_01k4 && tidemill watch batch_01k4
    """
    batch = _asked(lambda client: client.resume(batch_id), url, api_key, home)
    _print(batch, batch.status, as_json)


def retry(
    batch_id: options.BatchId,
    window: Annotated[
        str | None,
        typer.Option(
            "--window",
            callback=completion_window,
            metavar="<1h to 365d>",
            help="The time it may take, as 24h or 7d. By default as before.",
        ),
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            "--priority",
            callback=between(-100, 100),
            metavar="<-100 to 100>",
            help="Higher is served first. By default as before.",
        ),
    ] = None,
    url: options.Url = None,
    api_key: options.ApiKey = None,
    home: options.Home = None,
    as_json: options.Json = False,
) -> None:
    """Run the failed lines of a batch that has ended, and print the new batch's id.

    The new batch has those lines alone, under the custom_ids they had. Fetch both for all answers.

    Examples:

        id=$(tidemill retry batch_01k4)

        tidemill watch $id && tidemill fetch $id -o retried.jsonl
    """
    batch = _asked(
        lambda client: client.retry(batch_id, completion_window=window, priority=priority),
        url,
        api_key,
        home,
    )
    _print(batch, batch.id, as_json)


def _asked(
    ask: Callable[["Client"], "Batch"], url: str | None, api_key: str | None, home: Path | None
) -> "Batch":
    from tidemill.run.session import connect

    with connect(url, api_key, home) as client:
        return ask(client)


def _print(batch: "Batch", word: str, as_json: bool) -> None:
    from tidemill.cli.render import print_json

    if as_json:
        print_json(batch)
    else:
        terminal.put(word)
