"""Options and arguments that are not UTF-8, which no message, request or database can hold."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from tidemill.errors import UsageError


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
                if isinstance(text, str):
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
