"""Joins a batch's results to the rows of the plain input they came from, both in input order."""

import heapq
import sys
from collections.abc import Iterable, Iterator
from itertools import chain
from operator import itemgetter

import msgspec

from storage.datasets.readers.results import read_results
from storage.datasets.readers.rows import read_fields
from storage.datasets.values.results import (
    Record,
    Result,
    ResultColumns,
    ResultError,
    check_names,
)
from storage.datasets.values.rows import id_prefix
from storage.datasets.values.sources import Kind, Source
from storage.datasets.values.unsendable import CODE
from storage.errors import InputMismatch

Pieces = Iterable[bytes]


class OrderedResults:
    """The results of a batch's output and error files, asked for row by row, in order.

    Each file is in the order of its rows.

    Args:
        rows: how many rows the batch's input had, if that is known.
        prefix: how every ``custom_id`` begins, where rows are numbered in more than one way.
    """

    def __init__(
        self, outputs: Pieces, errors: Pieces, rows: int | None = None, prefix: str = ""
    ) -> None:
        each = (_by_row(outputs, prefix), _by_row(errors, prefix))
        self._results = heapq.merge(*each, key=itemgetter(0))
        self._row, self._result = next(self._results, _END)
        self._rows, self._asked = rows, 0

    def of(self, row: int) -> Result:
        """The result of a row, which is not before one that was asked for already.

        A row that the service has nothing for gets a result that says so.

        Raises:
            InputMismatch: a result is of no row at all.
            ResultNotUnderstood: a line of the files is not a result.
        """
        self._asked += 1
        while self._row < row:
            self._row, self._result = next(self._results, _END)
        if self._row == row:
            return self._result
        return msgspec.structs.replace(_NO_RESULT, row=row)

    def end(self, row: int) -> None:
        """Check that there is nothing left after the last row of the input.

        Raises:
            InputMismatch: there are results of more rows, or the batch had more or fewer.
            ResultNotUnderstood: a line of the files is not a result.
        """
        while self._row <= row:
            self._row, self._result = next(self._results, _END)
        if self._row != sys.maxsize:
            raise InputMismatch(
                f"{InputMismatch()} It has no row {self._row}, but there is a result."
            )
        if self._rows not in (None, self._asked):
            raise InputMismatch(
                f"{InputMismatch()} It has {self._asked:,} rows, and the batch had {self._rows:,}."
            )


def join_rows(
    source: Source,
    outputs: Pieces,
    errors: Pieces,
    *,
    columns: ResultColumns | None = None,
    rows: int | None = None,
) -> Iterator[Record]:
    """Every row with its result, in order; ``outputs`` and ``errors`` are the result files.

    Args:
        columns: names that no row may have among its own.
        rows: how many rows the batch's input had, if that is known.

    Raises:
        InputNotUnderstood: the source cannot be read, or has a field of a name that is needed.
        InputMismatch: the results are not those of the source.
        ResultNotUnderstood: a line of the result files is not a result.
    """
    # Of a table that it reads itself the service numbers the rows, "row-1", and not the lines.
    prefix = "" if source.kind is Kind.PARQUET else id_prefix(source.kind)
    results = OrderedResults(outputs, errors, rows, prefix)
    number = 0
    for number, fields, problem in read_fields(source):
        if columns is not None:
            check_names(source.name, number, fields, columns)
        result = results.of(number)
        if problem is not None and result.error is not None:
            # The request went without a prompt; the reason for that is the one to tell.
            result = msgspec.structs.replace(result, error=ResultError(CODE, problem))
        yield Record(fields, result)
    results.end(number)


def unjoined(*files: Pieces) -> Iterator[Record]:
    """Every result of the files beside its ``custom_id`` alone, in the files' order."""
    results = chain.from_iterable(map(read_results, files))
    return (Record({"custom_id": result.custom_id}, result) for result in results)


_NO_RESULT = Result(
    None, None, None, None, ResultError("no_result", "The service has no result for this row.")
)
_END = (sys.maxsize, _NO_RESULT)


def _by_row(pieces: Pieces, prefix: str) -> Iterator[tuple[int, Result]]:
    for result in read_results(pieces):
        if result.row is None or not (result.custom_id or prefix).startswith(prefix):
            raise InputMismatch(
                f"{InputMismatch()} The custom_id {result.custom_id!r} is that of no row."
            )
        yield result.row, result
