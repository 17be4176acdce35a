"""Which lines of the input a retry plans: those in the error file of the batch it refers to.

Both files are in line order, so they are read side by side and nothing is kept of either. A line is
found in the error file by its id alone, which is derived from the batch and the line number
(`worker.endpoints.result_lines`).
"""

import sys
from collections.abc import Container, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final

import msgspec

from storage.database.connection import Database
from storage.database.tables import Job
from storage.errors import NotFound, ObjectChanged, ObjectNotFound
from storage.jobs import jobs
from storage.objects import ObjectStore
from storage.registry import files
from storage.streams.jsonl import Line, read_lines
from worker.endpoints.result_lines import result_id
from worker.errors import PlanRefused

EVERY_LINE: Final = range(sys.maxsize)
# How much longer than its input line an error line may be: its message is of bounded length.
_ERROR_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RetrySource:
    """The batch whose failed lines are run again, and its error file as it was published."""

    job_id: str
    object_key: str
    etag: str


class FailedLines:
    """The line numbers of an error file, to be asked for (``in``) in ascending order.

    Args:
        job_id: the batch that the error file is of.
        errors: its lines.
    """

    def __init__(self, job_id: str, errors: Iterator[Line]) -> None:
        self._job_id = job_id
        self._errors = errors
        self._next: str | None = None
        self._advance()

    def __contains__(self, number: object) -> bool:
        if self._next is None or not isinstance(number, int):
            return False
        if result_id(self._job_id, number) != self._next:
            return False
        self._advance()
        return True

    def check_end(self) -> None:
        """Raise `PlanRefused` unless every line of the error file was found in the input."""
        if self._next is not None:
            raise _gone()

    def _advance(self) -> None:
        line = next(self._errors, None)
        try:
            self._next = None if line is None else _decoder.decode(line.data).id
        except msgspec.DecodeError:
            raise _gone() from None


class _ErrorLine(msgspec.Struct):
    id: str


_decoder = msgspec.json.Decoder(_ErrorLine)


def retry_source(database: Database, job: Job) -> RetrySource | None:
    """What a job that is a retry takes its lines from; ``None`` for any other job.

    Raises:
        PlanRefused: the batch or its error file is gone.
    """
    if job.retry_of is None:
        return None
    try:
        earlier = jobs.get(database, job.tenant_id, job.retry_of)
        # If it has expired since the retry was created, it is kept until the retry is planned.
        file = files.load(database, earlier.err_file_id or "")
    except NotFound:
        raise _gone() from None
    return RetrySource(earlier.id, file.object_key, file.etag)


@contextmanager
def chosen_lines(
    store: ObjectStore, source: RetrySource | None, *, max_line_bytes: int
) -> Iterator[Container[int]]:
    """The numbers of the lines to plan, for one pass over the input in line order.

    Raises:
        PlanRefused: the error file is gone, or is not of this input.
    """
    if source is None:
        yield EVERY_LINE
        return
    with ExitStack() as stack:
        stream = _opened(store, source, stack)
        limit = max_line_bytes + _ERROR_BYTES
        failed = FailedLines(source.job_id, read_lines(stream, max_line_bytes=limit))
        try:
            yield failed
        except PlanRefused:
            # If the error file is of another input, no line was found, and this names the reason.
            failed.check_end()
            raise
        failed.check_end()


def _opened(store: ObjectStore, source: RetrySource, stack: ExitStack) -> BinaryIO:
    try:
        return stack.enter_context(store.reader(source.object_key, if_match=source.etag))
    except (ObjectNotFound, ObjectChanged):
        raise _gone() from None


def _gone() -> PlanRefused:
    return PlanRefused(
        "The error file of the batch that is to be retried was changed or deleted.",
        code="retry_source_gone",
    )
