"""What to upload for an input: the file itself, or its rows as requests."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

from storage.datasets.request_lines import RequestOptions, request_lines
from storage.datasets.values.sources import Kind, Source
from storage.endpoints import COMPLETIONS
from tidemill.client.uploads import Upload
from tidemill.errors import UsageError
from tidemill.run.dataset_errors import dataset_errors

PIECE_BYTES = 256 * 1024


def upload_of(source: Source, options: RequestOptions) -> Upload:
    """The upload for an input.

    Raises:
        UsageError: options for plain inputs, but the input holds whole requests.
        InputError: from the upload's chunks, where a row cannot be read.
    """
    if source.kind is Kind.REQUESTS:
        if options.given:
            raise UsageError(
                f"{source.name} holds whole requests ({{custom_id, method, url, body}}), which "
                "name their model and parameters themselves; leave out --model, --system, "
                "--template, --endpoint and the sampling options."
            )
        return replace(Upload.from_path(source.path), filename=source.name)
    if options.system and options.endpoint == COMPLETIONS:
        raise UsageError(f"--system needs chat messages; {COMPLETIONS} has none.")
    name = source.name.removesuffix(".gz").rsplit(".", 1)[0] + ".requests.jsonl"
    return Upload(name, lambda: _requests(source, options))


def _requests(source: Source, options: RequestOptions) -> Iterator[bytes]:
    with dataset_errors():
        yield from _pieces(request_lines(source, options))


def _pieces(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines joined to pieces worth a network write each."""
    piece = bytearray()
    for line in lines:
        piece += line
        if len(piece) >= PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
    if piece:
        yield bytes(piece)
