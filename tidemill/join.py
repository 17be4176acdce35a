"""Joins a batch's answers to the rows of the plain input they came from, both in input order."""

import heapq
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import msgspec

from tidemill.answers import Answer, Problem, read_answers
from tidemill.inputs import Kind, Source, read_rows

UNREADABLE = "unreadable_row"

Pieces = Iterable[bytes]


@dataclass(frozen=True, slots=True)
class Record:
    """A row's own fields, and what became of it."""

    fields: Mapping[str, Any]
    answer: Answer


class Answers:
    """The answers of a batch's output and error files, asked for row by row, in order."""

    def __init__(self, outputs: Pieces, errors: Pieces) -> None:
        self._answers = heapq.merge(_by_row(outputs), _by_row(errors), key=itemgetter(0))
        self._row, self._answer = next(self._answers, _END)

    def of(self, row: int) -> Answer:
        """The answer of a row, which is not before one that was asked for already.

        A row that the service has nothing for gets an answer that says so.
        """
        while self._row < row:
            self._row, self._answer = next(self._answers, _END)
        if self._row == row:
            return self._answer
        return msgspec.structs.replace(_NO_RESULT, row=row)


def join_rows(source: Source, outputs: Pieces, errors: Pieces) -> Iterator[Record]:
    """Every row with its answer, in order; ``outputs`` and ``errors`` are the result files."""
    answers = Answers(outputs, errors)
    for number, fields, problem in _numbered(source):
        answer = answers.of(number)
        if problem is not None and answer.error is not None:
            reason = Problem(UNREADABLE, problem)
            answer = msgspec.structs.replace(answer, error=reason)
        yield Record(fields, answer)


def field_types(source: Source) -> dict[str, type]:
    """The fields of all rows and the type of each, for formats that fix them beforehand.

    A field of several types, or of lists or objects, is ``str``: JSON text.
    """
    types: dict[str, type] = {}
    for _, fields, _ in _numbered(source):
        for name, value in fields.items():
            if value is None:
                types.setdefault(name, type(None))
                continue
            kind = type(value) if type(value) in (bool, int, float) else str
            if kind is int and not -(2**63) <= value < 2**63:
                kind = str
            before = types.get(name, type(None))
            if before in (type(None), kind):
                types[name] = kind
            else:
                types[name] = float if {before, kind} == {int, float} else str
    return {name: str if kind is type(None) else kind for name, kind in types.items()}


_NO_RESULT = Answer(
    None, None, None, None, Problem("no_result", "The service has no result for this row.")
)
_END = (sys.maxsize, _NO_RESULT)


def _by_row(pieces: Pieces) -> Iterator[tuple[int, Answer]]:
    return ((answer.row, answer) for answer in read_answers(pieces) if answer.row is not None)


def _numbered(source: Source) -> Iterator[tuple[int, Mapping[str, Any], str | None]]:
    """Every row's number and fields, and why it could not be sent."""
    if source.kind is Kind.PARQUET:
        from tidemill.parquet import read_records

        for number, fields in enumerate(read_records(source), 1):
            yield number, fields, None
    else:
        for row in read_rows(source):
            yield row.number, row.fields, row.problem
