"""What became of rows: results of a finished batch, and rows joined to them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from storage.datasets.values.origins import Origin
from storage.errors import InputNotUnderstood


class ResultError(Struct, frozen=True):
    """Why a row failed. ``line`` stands in results that earlier versions wrote."""

    code: str | None = None
    message: str | None = None
    param: str | None = None
    line: int | None = None


class Result(Struct, frozen=True):
    """One line of a batch's output or error file.

    Attributes:
        row: the row of the plain input it belongs to; ``None`` where the line does not tell.
        text: the first output's text; ``None`` where the row failed.
        error: why it failed.
        origin: the row of a dataset, where the line tells; its number is another than the line's.
    """

    custom_id: str | None
    row: int | None
    text: str | None
    finish_reason: str | None
    error: ResultError | None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A row's own fields, and what became of it."""

    fields: Mapping[str, Any]
    result: Result


@dataclass(frozen=True, slots=True)
class ResultColumns:
    """The names of the fields that a row gets from its result."""

    answer: str
    finish_reason: str
    error: str

    @classmethod
    def named(cls, answer: str) -> "ResultColumns":
        """``answer, finish_reason, error``, or all three marked by another name for the first."""
        if answer == "answer":
            return cls("answer", "finish_reason", "error")
        return cls(answer, f"{answer}_finish_reason", f"{answer}_error")

    @property
    def all(self) -> tuple[str, str, str]:
        """The three names, in the output's order."""
        return self.answer, self.finish_reason, self.error


def check_names(source: str, row: int, fields: Iterable[str], columns: ResultColumns) -> None:
    """Check that a row's own fields have other names than what the output puts beside them.

    Raises:
        InputNotUnderstood: one has not.
    """
    if clash := set(columns.all).intersection(fields):
        raise InputNotUnderstood(
            f"{source}, line {row} has a field {min(clash)!r} already, which the "
            "output needs for itself; name ours with --answer-column."
        )
