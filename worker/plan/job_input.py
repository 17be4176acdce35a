"""The lines of a job's input, as a stream: for its planner, and for who ends it unplanned."""

from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from storage.database.tables import Job
from storage.objects import ObjectStore
from storage.settings import ApiSettings
from storage.streams.gzipped import decoded
from storage.streams.jsonl import Line, read_lines
from worker.errors import PlanRefused
from worker.plan.retry import RetrySource, chosen_lines


@dataclass(frozen=True, slots=True)
class JobInput:
    """One job's input, of which a retry takes only some lines.

    Args:
        heartbeat: called for every chunk that is read; raises to end the reading.
        retry: what the job takes its lines from, if it is a retry.
    """

    settings: ApiSettings
    store: ObjectStore
    job: Job
    heartbeat: Callable[[], None]
    retry: RetrySource | None = None

    def check_not_empty(self) -> None:
        """Raise `PlanRefused` for an empty file, `ObjectNotFound` where there is none."""
        if self.store.head(self.job.input_key).size == 0:
            raise PlanRefused("The input file is empty.", code="empty_file", param="input_file_id")

    @contextmanager
    def lines(self) -> Iterator[Iterator[Line]]:
        """Every line that is not blank.

        Raises:
            ObjectNotFound, ObjectChanged: the input is gone.
            DamagedData, DecodedTooLarge, TooManyLines: also while it is read.
        """
        settings = self.settings
        with self.store.reader(self.job.input_key, if_match=self.job.input_etag) as stream:
            plain = decoded(stream, max_bytes=settings.max_decoded_bytes)
            yield read_lines(
                plain,
                max_line_bytes=settings.max_line_bytes,
                max_lines=settings.max_batch_lines,
                heartbeat=self.heartbeat,
            )

    def chosen(self) -> AbstractContextManager[Container[int]]:
        """The numbers of the lines to plan, for one pass; see `worker.plan.retry.chosen_lines`."""
        limit = self.settings.max_line_bytes
        return chosen_lines(self.store, self.retry, max_line_bytes=limit)
