"""Joins a batch's results to the rows of the plain input they came from, both in input order."""

import heapq
import sys
from collections.abc import Iterable, Iterator
from operator import itemgetter

import msgspec

from storage.datasets.readers.results import read_results
from storage.datasets.readers.rows import read_fields
from storage.datasets.values.results import Record, Result, ResultError
from storage.datasets.values.sources import Source
from storage.datasets.values.unsendable import CODE

Pieces = Iterable[bytes]


class OrderedResults:
    """The results of a batch's output and error files, asked for row by row, in order.

    Each file is in the order of its rows.
    """

    def __init__(self, outputs: Pieces, errors: Pieces) -> None:
        self._results = heapq.merge(_by_row(outputs), _by_row(errors), key=itemgetter(0))
        self._row, self._result = next(self._results, _END)

    def of(self, row: int) -> Result:
        """The result of a row, which is not before one that was asked for already.

        A row that the service has nothing for gets a result that says so.

        Raises:
            ResultNotUnderstood: a line of the files is not a result.
        """
        while self._row < row:
            self._row, self._result = next(self._results, _END)
        if self._row == row:
            return self._result
        return msgspec.structs.replace(_NO_RESULT, row=row)


def join_rows(source: Source, outputs: Pieces, errors: Pieces) -> Iterator[Record]:
    """Every row with its result, in order; ``outputs`` and ``errors`` are the result files.

    Raises:
        InputNotUnderstood: the source cannot be read.
        ResultNotUnderstood: a line of the files is not a result.
    """
    results = OrderedResults(outputs, errors)
    for number, fields, problem in read_fields(source):
        result = results.of(number)
        if problem is not None and result.error is not None:
            # The request went without a prompt; the reason for that is the one to tell.
            result = msgspec.structs.replace(result, error=ResultError(CODE, problem))
        yield Record(fields, result)


def unjoined(outputs: Pieces) -> Iterator[Record]:
    """Every result of an output file beside its ``custom_id`` alone, in the file's order."""
    return (Record({"custom_id": result.custom_id}, result) for result in read_results(outputs))


_NO_RESULT = Result(
    None, None, None, None, ResultError("no_result", "The service has no result for this row.")
)
_END = (sys.maxsize, _NO_RESULT)


def _by_row(pieces: Pieces) -> Iterator[tuple[int, Result]]:
    return ((result.row, result) for result in read_results(pieces) if result.row is not None)
