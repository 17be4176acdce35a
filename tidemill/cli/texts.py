"""Options and arguments that are not UTF-8, which no message, request or database can hold."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import typer

from tidemill.errors import UsageError


def only_utf8(app: typer.Typer, *, paths: bool = False) -> None:
    """Let every command of an app refuse such texts with a `UsageError`.

    Args:
        paths: whether paths must be UTF-8, too; a file's may be any bytes.
    """
    kinds = (str, Path) if paths else (str,)
    for command in app.registered_commands:
        if command.callback is not None:
            command.callback = _checked(command.callback, kinds)


def _checked(command: Callable[..., Any], kinds: tuple[type, ...]) -> Callable[..., Any]:
    @wraps(command)
    def checked(**values: Any) -> Any:
        for name, value in values.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, kinds):
                    _check(name.replace("_", "-"), str(text))
        return command(**values)

    return checked


def _check(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text.encode(errors="surrogateescape").decode(errors="replace")
        raise UsageError(f"The value of {name} is not UTF-8 text: {shown}") from error
