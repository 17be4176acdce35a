"""Options and arguments that are not UTF-8, which no message, request or database can hold."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from tidemill.errors import UsageError


class FileOrUri(str):
    """An argument that names a file, and may then be any bytes, or a URI, which is UTF-8."""


def file_or_uri(text: str) -> FileOrUri:
    """An argument as one; `UsageError` for a URI that is not UTF-8."""
    if "://" in text:
        check_utf8("input", text)
    return FileOrUri(text)


def only_utf8(app: typer.Typer) -> None:
    """Let every command of an app refuse such texts with a `UsageError`. Paths may be any bytes."""
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _checked(command.callback)


def _checked(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def checked(**values: Any) -> Any:
        for name, value in values.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not isinstance(text, FileOrUri):
                    check_utf8(name.replace("_", "-"), text)
        return command(**values)

    return checked


def check_utf8(name: str, text: str) -> None:
    """Refuse an argument that is not UTF-8 with a `UsageError` that names it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode(errors="surrogateescape").decode(errors="replace")
        raise UsageError(f"The value of {name} is not UTF-8 text: {shown}") from error
