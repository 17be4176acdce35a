"""Windows → plan files in the store, and the chunks that name them.

Of a job whose results are to be written elsewhere too, a window is one shard. It is written long
after the plan is made, so what the input says of its rows is kept here: nobody reads the input
again, and it may change meanwhile.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any

import msgspec

from engine.config import EngineConfig
from storage.database.tables import Job
from storage.datasets.outputs.passthrough import PARAM, Passthrough
from storage.datasets.outputs.shards import shard_columns, write_rows
from storage.datasets.values.origins import Origins
from storage.datasets.values.output_options import OUTPUT_KEY, OutputOptions
from storage.errors import OutputError
from storage.estimates.work import PlannedWork
from storage.jobs.outputs.planned import PlannedShard
from storage.jobs.planning import Plan, PlannedChunk
from storage.objects import ObjectStore, object_keys
from storage.settings import WorkerSettings
from worker.plan.job_input import JobInput
from worker.plan.order import ChunkLimits, arrange, cut, shared_tokens
from worker.plan.plan_file import PlanHeader, encode_groups, encode_problems
from worker.plan.rows import Group, PlannedLine, unpack_params
from worker.plan.windows import Window
from worker.problems import Problem

# A small job has smaller chunks: several workers share it, and a crash repeats less of it.
_FEWEST_REQUESTS = 32
_CHUNKS_A_JOB = 16


def chunk_limits(settings: WorkerSettings, n_lines: int) -> ChunkLimits:
    """How large the chunks of a job of ``n_lines`` lines are to be."""
    share = max(_FEWEST_REQUESTS, n_lines // _CHUNKS_A_JOB)
    return ChunkLimits(settings.chunk_tokens, min(settings.chunk_lines, share))


@dataclass
class ShardRows:
    """Takes windows in the input's order, and keeps their rows.

    Attributes:
        columns: of the shards.
        shards: those of the windows so far.
    """

    store: ObjectStore
    job: Job
    passthrough: Passthrough | None
    heartbeat: Callable[[], None]
    shards: list[PlannedShard] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._passed = self.passthrough.schema if self.passthrough else None
        self._rows = self.passthrough.rows() if self.passthrough else None
        self.columns = shard_columns(self._passed)

    def add(self, window: Window) -> None:
        """Keep the rows of one window.

        Raises:
            StorageError: they could not be written.
            DatasetError: a file of the input cannot be read any more.
        """
        unsorted: list[PlannedLine | Problem] = [*window.lines, *window.problems]
        found = sorted(unsorted, key=lambda each: each.line)
        ids = [each.custom_id for each in found]
        key = object_keys.rows(self.job.id, self.job.plan_epoch, len(self.shards))
        batches = self._rows.take(len(ids)) if self._rows else ()
        with self.store.writer(key) as writer:
            write_rows(writer, ids, self._passed, batches, self.heartbeat)
        self.shards.append(PlannedShard(found[0].line, found[-1].line, len(ids), key))


def shard_rows(given: JobInput) -> ShardRows | None:
    """For a job whose results are to be written elsewhere too; ``None`` for any other.

    Raises:
        OutputError: the columns cannot be passed through.
        DatasetError: a file of the input cannot be read.
    """
    said = given.job.options.get(OUTPUT_KEY)
    if said is None:
        return None
    options = msgspec.convert(said, OutputOptions)
    passthrough = None
    if options.passthrough:
        dataset = given.dataset()
        if dataset is None:
            raise OutputError(
                "Lines of whole requests have no columns to pass through; leave it out.",
                param=PARAM,
            )
        passthrough = Passthrough.of(dataset, options.passthrough)
    return ShardRows(given.store, given.job, passthrough, given.heartbeat)


@dataclass
class PlanBuilder:
    """Takes windows in the input's order and appends their chunks to the plan.

    Of a chunk only a small tuple stays in memory. Of a job that asks for its estimate alone nothing
    is written, and the first bad lines are kept instead.

    Args:
        sources: what each model's engine loads.
        fallback_model: whose workers write the error lines of bad lines.
        origins: where the lines come from, if the input is a dataset.
        shards: keeps the rows of each window, where they are wanted.
        cache_block: tokens in a block of the engine's prefix cache, for the expected saving.
        most_errors: how many bad lines an estimate tells of.
    """

    store: ObjectStore
    job: Job
    sources: Mapping[str, str]
    limits: ChunkLimits
    fallback_model: str
    cache_block: int = EngineConfig().block_size
    most_errors: int = 100
    origins: Origins = field(default_factory=Origins)
    shards: ShardRows | None = None
    _chunks: list[PlannedChunk] = field(default_factory=list)
    _at: int = 0
    _bad: int = 0
    _errors: list[dict[str, Any]] = field(default_factory=list)
    _work: defaultdict[str, PlannedWork] = field(default_factory=lambda: defaultdict(PlannedWork))

    def add(self, window: Window) -> None:
        """Plan one window.

        Raises:
            StorageError: a plan file could not be written, or the rows not be read again.
        """
        if self.shards is not None:
            self.shards.add(window)
        groups = arrange(window.lines, self.cache_block)
        for model, alike in groupby(groups, lambda group: group.leader.model):
            self._work[model].shared_tokens += shared_tokens(alike, self.cache_block)
        for chunk in cut(groups, self.limits):
            self._add_groups(chunk)
        if window.problems:
            self._add_problems(window.problems)

    def _add_problems(self, problems: list[Problem]) -> None:
        self._bad += len(problems)
        if self.job.only_estimated:
            room = max(0, self.most_errors - len(self._errors))
            self._errors += [
                problem.report(self.origins.of(problem.line)) for problem in problems[:room]
            ]
            return
        lines = [problem.line for problem in problems]
        data = encode_problems(self._header("", lines), problems)
        self._add_chunk(self.fallback_model, data, lines, prompt_tokens=0)

    def _add_groups(self, groups: list[Group]) -> None:
        rows = [row for group in groups for row in group.lines]
        model = rows[0].model
        tokens = sum(row.prompt_tokens for row in rows)
        for group in groups:
            _count(group, self._work[model])
        if self.job.only_estimated:
            return
        lines = [row.line for row in rows]
        data = encode_groups(self._header(self.sources[model], lines), groups)
        self._add_chunk(model, data, lines, prompt_tokens=tokens)

    def _header(self, source: str, lines: list[int]) -> PlanHeader:
        job, files = self.job, self.origins.of_lines(lines)
        return PlanHeader(self._at, job.endpoint, source, salt=job.tenant_id, files=files)

    def _add_chunk(self, model: str, data: bytes, lines: list[int], *, prompt_tokens: int) -> None:
        a, b = self._at, self._at + len(lines)
        key = object_keys.plan(self.job.id, self.job.plan_epoch, a, b)
        self.store.put(key, data)
        self._chunks.append(
            PlannedChunk(
                a=a,
                b=b,
                model=model,
                plan_key=key,
                first_line=min(lines),
                last_line=max(lines),
                n_tokens=prompt_tokens,
            )
        )
        self._at = b

    def plan(self) -> Plan:
        """The whole plan, once every window is added.

        The summary counts lines and tokens:

        - ``prompt_tokens``: of all lines
        - ``unique_prompt_tokens``: without duplicates, of lines and of prompts within a line
        - ``expected_cached_tokens``: those of ``prompt_tokens`` that need not be computed, as their
          line equals another or begins like one; the batch's usage tells what was cached in the end
        - ``max_output_tokens``: of all outputs, at most
        """
        work = self._work
        lines = sum(each.lines for each in work.values()) + self._bad
        prompts = sum(each.prompt_tokens for each in work.values())
        distinct = sum(each.distinct_tokens for each in work.values())
        shared = sum(each.shared_tokens for each in work.values())
        return Plan(
            n_lines=lines,
            chunks=self._chunks,
            model=next(iter(work)) if len(work) == 1 else None,
            n_invalid=self._bad,
            errors=self._errors,
            work=work,
            shards=self.shards.shards if self.shards else (),
            columns=self.shards.columns if self.shards else (),
            summary={
                "lines": lines,
                "invalid_lines": self._bad,
                "duplicate_lines": sum(x.lines - x.distinct_lines for x in work.values()),
                "prompt_tokens": prompts,
                "unique_prompt_tokens": distinct,
                "expected_cached_tokens": shared + prompts - distinct,
                "max_output_tokens": sum(x.distinct_limit_tokens for x in work.values()),
                "chunks": len(self._chunks),
                "models": {model: each.lines for model, each in work.items()},
            },
        )


def _count(group: Group, work: PlannedWork) -> None:
    """Add equal lines to what their model has to do."""
    leader, lines = group.leader, len(group.lines)
    prompts = leader.computed_prompts
    computed = sum(map(len, prompts)) // 4
    longest, each = _outputs(leader.params)
    limit = leader.budget - computed
    work.lines += lines
    work.distinct_lines += 1
    work.outputs += len(prompts) * each
    work.prompt_tokens += leader.prompt_tokens * lines
    work.distinct_tokens += computed
    work.limit_tokens += limit * lines
    work.distinct_limit_tokens += limit
    work.longest = max(work.longest, longest)


@lru_cache(maxsize=1024)
def _outputs(params: str) -> tuple[int, int]:
    """Most tokens of an output, and the outputs of a prompt, by packed parameters."""
    found = unpack_params(params)
    return found.max_tokens or 0, found.num_generated
