"""``from tidemill import Client``: the client of the service, and `Client.map` for frames."""

import hashlib
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.kinds import open_source
from storage.datasets.request_lines import RequestOptions
from storage.datasets.templates.row_template import RowTemplate
from storage.datasets.templates.tables import open_rows
from storage.datasets.values.results import Result, ResultColumns, check_names
from storage.datasets.values.sources import Kind, Source
from storage.endpoints import CHAT_COMPLETIONS
from tidemill import terminal
from tidemill.client import client
from tidemill.client.shapes import Batch
from tidemill.client.uploads import Upload
from tidemill.errors import BatchFailed, InputChanged, UsageError
from tidemill.frames.kinds import to_table, with_columns
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.progress import Reporter, reporter, with_progress
from tidemill.run.uploads import upload_of

NAME_KEY, DIGEST_KEY = "map", "map_sha256"
JOBS_LOOKED_AT = 1_000
LONGEST_WINDOW = "365d"
MOST_NAME = 512  # characters, as of all metadata


class Client(client.Client):
    """A client of the service that takes frames.

        with Client("http://127.0.0.1:8000") as client:
            answered = client.map(df, "Summarise: {{ body }}", max_tokens=64)

    Its arguments and errors are those of `tidemill.client.Client`.
    """

    def map(
        self,
        data: Any,
        prompt: str | None = None,
        *,
        template: Sequence[Mapping[str, Any]] | Mapping[str, Any] | None = None,
        column: str | None = None,
        model: str | None = None,
        system: str | None = None,
        answer: str = "answer",
        endpoint: str = CHAT_COMPLETIONS,
        name: str | None = None,
        window: str = LONGEST_WINDOW,
        progress: bool = True,
        **sampling: Any,
    ) -> Any:
        """Ask a model about every row, and get the frame back with the answers beside its rows.

        The rows keep their order. Beside ``answer`` stand ``finish_reason`` and ``error``; a row
        that failed has no answer, and its error says why.

        Args:
            data: a pandas or polars DataFrame, a pyarrow Table, or a list of dictionaries.
            prompt: a template over the columns, as ``"Summarise: {{ body }}"``.
            template: in place of ``prompt``, messages or a whole body with templates in them.
            column: in place of both, the column that holds ready prompts or lists of messages;
                by default ``messages`` or ``prompt``.
            model: the model to ask; ``None`` leaves it to the service.
            system: a system message put before each prompt.
            answer: the name of the answers' column; the two beside it are marked by it.
            endpoint: ``/v1/completions`` sends prompts without the model's chat template.
            name: a name for the job. Called again with the same name and rows, `map` goes on with
                that job, or returns its answers, and runs nothing twice.
            window: how long the job may take, as ``"24h"``.
            progress: whether to show how far it is.
            sampling: parameters by their names in the API, as ``max_tokens=64``.

        Raises:
            InputError: the rows cannot be read, or have no prompts.
            UsageError: a template is none, or reads a column that is not there.
            InputChanged: a job of this name has other rows, or asks something else of them.
            BatchFailed: the job as a whole was refused, has expired or was cancelled.
            ClientError: the service could not be used.
        """
        given = [each for each in (prompt, template, column) if each is not None]
        if len(given) > 1:
            raise UsageError("Give one of prompt, template and column.")
        columns = ResultColumns.named(answer)
        spec: Any = prompt if prompt is not None else template
        with dataset_errors():
            options = RequestOptions(
                model=model,
                system=system,
                sampling=sampling,
                endpoint=endpoint,
                template=None if spec is None else RowTemplate.parse(spec),
                answer_column=answer,
            )
        with (
            tempfile.TemporaryDirectory(prefix="tidemill-") as folder,
            reporter(terminal.console(), quiet=not progress) as told,
        ):
            source = self._source(data, Path(folder), column, options, columns, name)
            if source is None:
                return with_columns(data, {each: [] for each in columns.all})
            batch = self._batch(upload_of(source, options), endpoint, name, window, told)
            results = self._results(self._ended(batch, named=name is not None, told=told))
        return with_columns(data, dict(zip(columns.all, results, strict=True)))

    def _source(
        self,
        data: Any,
        folder: Path,
        column: str | None,
        options: RequestOptions,
        columns: ResultColumns,
        name: str | None,
    ) -> Source | None:
        """The rows as a Parquet file; ``None`` where there are none."""
        table = to_table(data)
        path = folder / "rows.parquet"
        with dataset_errors():
            check_names("The frame", 1, table.column_names, columns)
            pq.write_table(table, path)
            source = _opened(path, name or "The frame", column, options.template)
        return source if table.num_rows else None

    def _batch(
        self, upload: Upload, endpoint: str, name: str | None, window: str, told: Reporter
    ) -> Batch:
        """The job of this name that is there already, or a new one."""
        digest = hashlib.sha256()
        for piece in upload.chunks():
            digest.update(piece)
        metadata = {DIGEST_KEY: digest.hexdigest()}
        if name is not None:
            if not 0 < len(name) <= MOST_NAME:
                raise UsageError(f"A job's name has 1 to {MOST_NAME} characters.")
            metadata[NAME_KEY] = name
            if (found := self._earlier(name, metadata[DIGEST_KEY])) is not None:
                return found
        told.say("Uploading")
        file = self.upload(with_progress(upload, told))
        return self.create_batch(
            file.id,
            endpoint,
            completion_window=window,
            metadata=metadata,
            options={"on_invalid": "skip"},
        )

    def _earlier(self, name: str, digest: str) -> Batch | None:
        for batch in self.batches(JOBS_LOOKED_AT):
            found = batch.metadata or {}
            if found.get(NAME_KEY) != name or batch.retry_of is not None:
                continue
            if found.get(DIGEST_KEY) != digest:
                raise InputChanged(
                    f"The job {name!r} ({batch.id}) has other rows, or asks something else of "
                    "them. Give this one another name."
                )
            # What was stopped is begun anew; the newest of a name comes first.
            return batch if batch.status in _GOES_ON else None
        return None

    def _ended(self, batch: Batch, *, named: bool, told: Reporter) -> Batch:
        """Wait for the batch; Ctrl-C cancels it, unless a name tells it from others."""
        try:
            for seen in self.watch(batch.id):
                told.update(seen)
                batch = seen
        except KeyboardInterrupt:
            if not named:
                self.cancel(batch.id)
            raise
        if batch.status != "completed":
            problems = batch.errors.data if batch.errors else []
            why = f": {problems[0].message}" if problems else "."
            raise BatchFailed(f"{batch.id} is {batch.status}{why}")
        return batch

    def _results(self, batch: Batch) -> list[tuple[str | None, ...]]:
        """Answers, finish reasons and errors, each a tuple with an entry a row."""
        rows = batch.request_counts.total
        with (
            _pieces(self, batch.output_file_id) as outputs,
            _pieces(self, batch.error_file_id) as errors,
            dataset_errors(),
        ):
            ordered = OrderedResults(outputs, errors, rows)
            found = [_texts(ordered.of(row)) for row in range(1, rows + 1)]
            ordered.end(rows)
        return list(zip(*found, strict=True))


def _opened(path: Path, name: str, column: str | None, template: RowTemplate | None) -> Source:
    if template is None:
        return open_source(path, name=name, column=column, kind=Kind.PARQUET)
    return open_rows(path, template, name=name, kind=Kind.PARQUET)


_GOES_ON = frozenset({"validating", "in_progress", "finalizing", "completed"})


def _texts(result: Result) -> tuple[str | None, str | None, str | None]:
    return result.text, result.finish_reason, result.error.message if result.error else None


def _pieces(client: client.Client, file_id: str | None) -> AbstractContextManager[Iterable[bytes]]:
    return client.download(file_id) if file_id else nullcontext(())
