"""What to send for an input: the file itself, or its rows as requests, or where it lies."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from storage.datasets.request_lines import RequestOptions, request_lines, with_system
from storage.datasets.values.files import plain_name
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
    name = plain_name(source.name).rsplit(".", 1)[0] + ".requests.jsonl"
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


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose rows the service turns into requests: one where it lies, or a file to upload.

    Attributes:
        given: the URI, or the path of a file.
        options: what the service is told of its rows.
        endpoint: what the requests are for.
    """

    given: Path | str
    options: Mapping[str, Any]
    endpoint: str

    @classmethod
    def of(
        cls,
        given: Path | str,
        request: RequestOptions,
        template: Any,
        *,
        key: str | None,
        column: str | None,
        kind: Kind | None,
    ) -> "Table":
        """The table that a command names.

        Raises:
            UsageError: parameters come without a template, in which they are sent.
        """
        said = {
            "template": None if template is None else _template(template, request),
            "key": key,
            "column": column,
            "input_format": kind,
        }
        if template is None and (request.model or request.system or request.sampling):
            raise UsageError(
                "The service makes the requests of this input, so --model, --system and the "
                "sampling options need a --template beside them."
            )
        options = {name: value for name, value in said.items() if value is not None}
        return cls(given, options, request.endpoint)


def output_options(
    uri: str | None, format: str | None, passthrough: Sequence[str] | None, *, requests: bool
) -> dict[str, Any]:
    """What the service is told of results that it is to write elsewhere too.

    Args:
        requests: whether requests are sent to it, and no rows.

    Raises:
        UsageError: the options do not go together.
    """
    if uri is None:
        if format or passthrough:
            raise UsageError("--format and --passthrough are of the results at --output-uri.")
        return {}
    if passthrough and requests:
        raise UsageError(
            "The service passes columns through where it reads the rows itself; name the input by "
            "a URI, or give --key."
        )
    columns = "all" if passthrough and "*" in passthrough else list(passthrough or ())
    said = {"output_uri": uri, "format": format, "passthrough": columns}
    return {name: value for name, value in said.items() if value}


def _template(spec: Any, request: RequestOptions) -> Any:
    """A template with the other options in it, which come before what it says."""
    more = {**({"model": request.model} if request.model else {}), **request.sampling}
    if not more and not request.system:
        return spec
    if isinstance(spec, str):
        spec = [{"role": "user", "content": spec}] if request.system else {"prompt": spec}
    body = {"messages": spec} if isinstance(spec, list) else spec.get("body", spec)
    if request.system:
        messages = body.get("messages")
        if not isinstance(messages, list):
            raise UsageError("--system needs a template that is a text or a list of messages.")
        body = {**body, "messages": with_system(messages, request.system)}
    return {**body, **more}
