"""A job's plan: two streamed passes over the input, in flat memory.

The first pass checks every line's envelope, so that a batch with a bad line fails before anything
is tokenized. The second pass works in windows: it tokenizes, groups duplicates, puts them in prefix
order, cuts them into chunks, and writes each chunk's plan file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import orjson

from storage.database.tables import Job
from storage.datasets.values.origins import Origins
from storage.errors import (
    DamagedData,
    DatasetError,
    DecodedTooLarge,
    InputModified,
    InputUriError,
    ObjectChanged,
    ObjectNotFound,
    OutputError,
    StorageError,
    TemplateError,
    TooManyLines,
)
from storage.ids import new_id
from storage.jobs.planning import Plan, Refusal
from storage.objects import ObjectStore, object_keys
from storage.registry.files import NewFile
from storage.settings import Settings
from worker.errors import PlanRefused, WorkerError
from worker.models.tokenizers import TextModel, TextModels, load_text_model
from worker.plan.build import PlanBuilder, chunk_limits, shard_rows
from worker.plan.check import Checked, check_lines
from worker.plan.envelope import LineRules
from worker.plan.job_input import JobInput
from worker.plan.retry import RetrySource
from worker.plan.tokenize import LineTokenizer
from worker.plan.windows import WindowLimits, windows

# Errors that are the input's own: planning it again would end in the same way.
REFUSING = (
    PlanRefused,
    TooManyLines,
    ObjectNotFound,
    ObjectChanged,
    DecodedTooLarge,
    DamagedData,
    DatasetError,
)


@dataclass(frozen=True)
class Planner:
    """Plans one job.

    Args:
        sources: every model that a line may name → what its tokenizer and engine load.
        folder: an empty folder for temporary files.
        heartbeat: called often; raises to end the planning.
        retry: what the job takes its lines from, if it is a retry.
        patient: whether a model whose files may come is waited for; its lines end otherwise.
    """

    settings: Settings
    store: ObjectStore
    job: Job
    sources: Mapping[str, str]
    folder: Path
    heartbeat: Callable[[], None]
    load_text_model: Callable[[str, str], TextModel] = load_text_model
    retry: RetrySource | None = None
    patient: bool = True

    def run(self) -> Plan | Refusal:
        """The plan, or why there is none.

        Raises:
            StorageError: the store failed.
            ModelNotReady: a model is waited for.
            OSError: the temporary folder is full.
        """
        try:
            return self._plan()
        except REFUSING as error:
            return refused(error)

    def _plan(self) -> Plan | Refusal:
        given = JobInput(self.settings, self.store, self.job, self.heartbeat, self.retry)
        given.check_not_empty()
        rules = LineRules(self.job.endpoint, self.sources, self.settings.worker.default_model)
        with given.lines() as lines, given.chosen() as chosen:
            checked = check_lines(
                lines,
                rules,
                self.folder,
                max_lines=self.settings.api.max_batch_lines,
                heartbeat=self.heartbeat,
                chosen=chosen,
                origins=given.origins,
            )
        if checked.problems.count and not self._skips:
            return self._refuse(checked, given.origins)
        return self._build(checked, rules, given)

    @property
    def _skips(self) -> bool:
        """Whether bad lines become error lines instead of failing the batch."""
        return bool(self.job.options.get("on_invalid", "fail") != "fail")

    def _build(self, checked: Checked, rules: LineRules, given: JobInput) -> Plan:
        settings = self.settings
        commonest = checked.models.most_common(1)
        builder = PlanBuilder(
            self.store,
            self.job,
            self.sources,
            chunk_limits(settings.worker, checked.n_lines),
            fallback_model=commonest[0][0] if commonest else settings.worker.default_model,
            origins=given.origins,
            shards=shard_rows(given),
        )
        tokenizer = LineTokenizer(
            self.job.endpoint,
            TextModels(self.sources, self.load_text_model, patient=self.patient),
            settings.worker.default_max_tokens,
        )
        limits = WindowLimits(settings.worker.plan_window_lines, settings.worker.plan_window_tokens)
        with given.lines() as lines, given.chosen() as chosen:
            planned = (line for line in lines if line.number in chosen)
            for window in windows(
                planned, checked.problems, rules, tokenizer, limits, self.heartbeat
            ):
                builder.add(window)
                del window  # or it would live on while the next one is read
        return builder.plan()

    def _refuse(self, checked: Checked, origins: Origins) -> Refusal:
        """A refusal that lists the first bad lines, with a report file that lists all of them."""
        key = object_keys.result(self.job.id, self.job.plan_epoch, "report")
        with self.store.writer(key) as writer:
            for problem in checked.problems:
                self.heartbeat()
                report = problem.report(origins.of(problem.line))
                writer.write(orjson.dumps(report) + b"\n")
        file = NewFile(
            id=new_id("file"),
            tenant_id=self.job.tenant_id,
            purpose="batch_output",
            filename=f"{self.job.id}_report.jsonl",
            bytes=writer.size,
            object_key=key,
            etag=writer.info.etag,
            sha256=writer.sha256,
            expires_after=self.job.output_expires_seconds,
        )
        first = islice(checked.problems, self.settings.api.max_reported_errors)
        return Refusal(
            errors=[problem.report(origins.of(problem.line)) for problem in first],
            n_invalid=checked.problems.count,
            n_lines=checked.n_lines,
            report=file,
        )


def refused(error: StorageError | WorkerError) -> Refusal:
    """What an error that is one of `REFUSING` says to the owner of the batch."""
    match error:
        case PlanRefused():
            return refusal(error.code, str(error), error.param)
        case TooManyLines():
            return refusal("too_many_tasks", f"The input file: {error}", "input_file_id")
        case TemplateError() | OutputError():
            return refusal(error.code, str(error), error.param)
        case InputModified() | InputUriError():
            return refusal(error.code, str(error), "tidemill.input_uri")
        case DatasetError():
            return refusal(error.code, _in_terms_of_the_api(str(error)), "input_file_id")
        case ObjectNotFound() | ObjectChanged():
            message = "The input file was changed or deleted after the batch was created."
            return refusal("input_modified", message, "input_file_id")
    return refusal(error.code, f"The input file: {error}", "input_file_id")


def _in_terms_of_the_api(message: str) -> str:
    """A message of a reader, which names what the command line calls otherwise."""
    return message.replace("--column", "tidemill.column").replace(
        "--input-format", "tidemill.input_format"
    )


def refusal(code: str, message: str, param: str | None = None) -> Refusal:
    """The refusal of a whole input."""
    error: dict[str, Any] = {"code": code, "message": message, "param": param, "line": None}
    return Refusal(errors=[error])
