"""The lines of a job's input, as a stream: for its planner, and for who ends it unplanned."""

from collections.abc import Callable, Container, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import msgspec

from storage.database.tables import Job
from storage.datasets.dataset_lines import Dataset, DatasetFile
from storage.datasets.inputs.places import data_file
from storage.datasets.inputs.remote import StoredObject
from storage.datasets.inputs.snapshots import read_snapshot
from storage.datasets.readers.kinds import is_table
from storage.datasets.values.dataset_options import OPTIONS_KEY, DatasetOptions
from storage.datasets.values.origins import Origins
from storage.datasets.values.sources import Limits
from storage.objects import ObjectStore
from storage.settings import Settings
from storage.streams.gzipped import decoded, joined
from storage.streams.jsonl import Line, read_lines
from worker.errors import PlanRefused
from worker.plan.retry import RetrySource, chosen_lines

HEAD_BYTES = 64 * 1024  # a table is told by its header


@dataclass(frozen=True, slots=True)
class JobInput:
    """One job's input, of which a retry takes only some lines.

    Args:
        heartbeat: called for every chunk or file that is read; raises to end the reading.
        retry: what the job takes its lines from, if it is a retry.

    Attributes:
        origins: where the lines that were read so far come from, if the input is a dataset.
    """

    settings: Settings
    store: ObjectStore
    job: Job
    heartbeat: Callable[[], None]
    retry: RetrySource | None = None
    origins: Origins = field(default_factory=Origins)

    def check_not_empty(self) -> None:
        """Raise `PlanRefused` for an empty file, `ObjectNotFound` where there is none."""
        if self.store.head(self.job.input_key).size == 0:
            raise PlanRefused("The input file is empty.", code="empty_file", param="input_file_id")

    @contextmanager
    def lines(self) -> Iterator[Iterator[Line]]:
        """Every line that is not blank, or every row of a dataset as a line.

        Raises:
            ObjectNotFound, ObjectChanged: the input is gone.
            DamagedData, DecodedTooLarge, TooManyLines: also while it is read.
            DatasetError: of a dataset, as `storage.datasets.dataset_lines.Dataset.lines`.
        """
        job, settings = self.job, self.settings.api
        options = msgspec.convert(job.options.get(OPTIONS_KEY, {}), DatasetOptions)
        if options.asked:
            yield self._dataset(options).lines()
            return
        with self.store.reader(job.input_key, if_match=job.input_etag) as stream:
            plain = decoded(stream, max_bytes=settings.max_decoded_bytes)
            head = plain.read(HEAD_BYTES)
            if is_table(head, options.name or ""):
                yield self._dataset(options).lines()
                return
            yield read_lines(
                joined(head, plain),
                max_line_bytes=settings.max_line_bytes,
                max_lines=settings.max_batch_lines,
                heartbeat=self.heartbeat,
            )

    def dataset(self) -> Dataset | None:
        """The dataset that the lines are rows of; ``None`` where they are requests themselves.

        Raises:
            ObjectNotFound, ObjectChanged, DamagedData, DecodedTooLarge: as `lines`.
        """
        job = self.job
        options = msgspec.convert(job.options.get(OPTIONS_KEY, {}), DatasetOptions)
        if not options.asked:
            with self.store.reader(job.input_key, if_match=job.input_etag) as stream:
                plain = decoded(stream, max_bytes=self.settings.api.max_decoded_bytes)
                if not is_table(plain.read(HEAD_BYTES), options.name or ""):
                    return None
        return self._dataset(options)

    def chosen(self) -> AbstractContextManager[Container[int]]:
        """The numbers of the lines to plan, for one pass; see `worker.plan.retry.chosen_lines`."""
        limit = self.settings.api.max_line_bytes
        return chosen_lines(self.store, self.retry, max_line_bytes=limit)

    def _dataset(self, options: DatasetOptions) -> Dataset:
        settings = self.settings.api
        return Dataset(
            lambda: self._files(options),
            options,
            self.job.endpoint,
            Limits(settings.max_line_bytes, settings.max_decoded_bytes),
            settings.max_batch_lines,
            self.origins,
            self.heartbeat,
        )

    def _files(self, options: DatasetOptions) -> Iterator[DatasetFile]:
        """The files of a snapshot, or the uploaded table."""
        job = self.job
        if not options.input_uri:
            size = self.store.head(job.input_key).size
            table = StoredObject(job.input_key, size, job.input_etag, self.store)
            yield DatasetFile(options.name or job.input_file_id, size, table)
            return
        with self.store.reader(job.input_key, if_match=job.input_etag) as stream:
            for file in read_snapshot(stream):
                content = data_file(self.settings.storage, file)
                yield DatasetFile(file.uri, file.size, content, file.partitions)
