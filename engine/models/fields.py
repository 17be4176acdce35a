"""Typed reading of a configuration that somebody else wrote."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.errors import CheckpointError, FilesUnreadable

_MOST_CHARACTERS = 100  # of a value in a message


class Fields:
    """Values by key; ``None`` counts as absent, and a wrong type is an error that names the key."""

    def __init__(self, values: Mapping[str, Any], source: str) -> None:
        self.values = values
        self.source = source

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer.

        Raises:
            CheckpointError: it is absent and has no default, or is no such number.
        """
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise CheckpointError(
                f"{self.source}: {key} is {_shown(value)}, not a positive integer."
            )
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A positive number.

        Raises:
            CheckpointError: it is absent and has no default, or is no such number.
        """
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise CheckpointError(
                f"{self.source}: {key} is {_shown(value)}, not a positive number."
            )
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """True or false.

        Raises:
            CheckpointError: it is neither.
        """
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise CheckpointError(f"{self.source}: {key} is {_shown(value)}, not true or false.")
        return value

    def token_ids(self, key: str, vocab_size: int) -> tuple[int, ...]:
        """One token id or a list of them; () where there is none.

        Ids outside the vocabulary, such as -1 for "none", are left out: no output can be one.

        Raises:
            CheckpointError: it holds something else.
        """
        value = self.values.get(key)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(id, int) and not isinstance(id, bool) for id in ids):
            raise CheckpointError(f"{self.source}: {key} is {_shown(value)}, not token ids.")
        return tuple(id for id in ids if 0 <= id < vocab_size)

    def section(self, key: str) -> "Fields":
        """A nested object; an empty one where it is absent.

        Raises:
            CheckpointError: it is something else.
        """
        value = self.values.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise CheckpointError(f"{self.source}: {key} is not an object.")
        return Fields(value or {}, f"{self.source}: {key}")

    def _get(self, key: str, default: object) -> object:
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise CheckpointError(f"{self.source} does not state {key}.")
        return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def read_json(path: Path) -> Fields:
    """Read a JSON object.

    Raises:
        CheckpointError: there is no such file, or it holds something else.
        FilesUnreadable: the system does not let it be read.
    """
    try:
        values = json.loads(path.read_bytes())
    except (FileNotFoundError, IsADirectoryError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON.") from error
    except OSError as error:
        raise FilesUnreadable.of(path, error) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} does not hold a JSON object.")
    return Fields(values, str(path))
