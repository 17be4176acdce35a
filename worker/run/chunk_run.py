"""One claimed chunk on its way through the engine: requests out, completions in, a part at last."""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import structlog
from msgspec import Raw

from engine.requests import Completion, Request
from storage.database.states import StopReason
from storage.database.tables import Chunk
from storage.jobs.chunks import Counts
from worker.endpoints.responses import (
    answer_line,
    as_duplicate,
    never_run_line,
    problem_line,
    response_body,
)
from worker.errors import BrokenResult
from worker.plan.plan_file import PlanFile, PlanRow
from worker.problems import Problem
from worker.run.parts import Record, encode_record
from worker.run.response_spool import ResponseSpool

log = structlog.get_logger(__name__)

CALLERS_FAULTS = frozenset({"context_length_exceeded", "invalid_request"})

NEVER_RUN_CODES = {
    StopReason.CANCELLED: "batch_cancelled",
    StopReason.EXPIRED: "batch_expired",
    StopReason.BROKEN: "batch_failed",
}


class ChunkRun:
    """The state of one chunk while this process runs it.

    Every distinct request is computed once; a line's answer is that of its leader. Where a split
    cut a group of duplicates, the leader may lie outside ``[a, b)``: its prompt is still in the
    plan file, and this chunk computes it for its own lines.

    Attributes:
        counts: what is answered so far. Replaced as a whole, so another thread may read it.
        stopped: why lines without an answer will stay so.
    """

    def __init__(self, chunk: Chunk, plan: PlanFile) -> None:
        self.chunk = chunk
        self.plan = plan
        self.stopped: StopReason | None = None
        self._failed: dict[int, tuple[int, Problem]] = {}  # leader → status and why
        self._rows = sorted(plan.rows(chunk.a, chunk.b), key=lambda row: row.line)
        self._responses = ResponseSpool()
        self._waits = Counter(row.leader for row in self._rows if row.problem is None)
        self.counts = Counts(err=len(self._rows) - self._waits.total())

    @property
    def pending(self) -> int:
        """Distinct requests that have no answer yet."""
        return len(self._waits)

    def requests(self) -> list[Request]:
        """What is to be computed, in the plan's order."""
        return [
            Request(
                id=self._request_id(position),
                prompt=self.plan.prompt(position),
                params=self.plan.params(position),
                salt=self.plan.header.salt,
            )
            for position in sorted(self._waits)
        ]

    def pending_ids(self) -> list[str]:
        """The ids of requests that have no answer yet."""
        return [self._request_id(position) for position in sorted(self._waits)]

    def _request_id(self, position: int) -> str:
        # The attempt is in it: an answer to an earlier attempt is never taken for this one's.
        return f"{self.chunk.id}/{self.chunk.attempt}/{position}"

    def accept(self, completion: Completion) -> None:
        """Take the answer to one of `requests`; one that came before is passed over."""
        position = int(completion.request_id.rpartition("/")[2])
        lines = self._waits.pop(position, 0)
        if not lines:
            return
        reasons = {output.finish_reason for output in completion.outputs}
        if completion.error is None and reasons <= {"stop", "length"} and reasons:
            self._answered(position, lines, completion)
            return
        self.counts = replace(self.counts, err=self.counts.err + lines)
        if "cancelled" not in reasons:
            self._failed[position] = _failure(completion)

    def _answered(self, position: int, lines: int, completion: Completion) -> None:
        endpoint = self.plan.header.endpoint
        body = response_body(endpoint, self.chunk.model, completion, int(time.time()))
        self._responses.add(position, body)
        prompt = len(completion.prompt_token_ids)
        self.counts = replace(
            self.counts,
            ok=self.counts.ok + lines,
            prompt_tokens=self.counts.prompt_tokens + prompt * lines,
            # To a duplicate the whole prompt counts as cached.
            cached_tokens=self.counts.cached_tokens
            + completion.cached_tokens
            + prompt * (lines - 1),
            completion_tokens=self.counts.completion_tokens + completion.completion_tokens * lines,
        )

    def give_up(self, reason: StopReason) -> None:
        """Wait for no more answers: lines without one become error lines that give the reason."""
        self.stopped = reason
        self.counts = replace(self.counts, err=self.counts.err + self._waits.total())
        self._waits.clear()

    def records(self) -> Iterator[bytes]:
        """The part, one encoded line after the other, in the input's order.

        Raises:
            BrokenResult: a line has no answer, although nothing is pending.
        """
        answered: set[int] = set()
        for row in self._rows:
            ok, text = self._line(row, answered)
            yield encode_record(row.line, ok, text)

    def _line(self, row: PlanRow, answered: set[int]) -> tuple[bool, bytes]:
        job_id = self.chunk.job_id
        if row.problem is not None:
            return False, problem_line(job_id, row.problem)
        body = self._responses.get(row.leader)
        if body is not None:
            body = as_duplicate(body) if row.leader in answered else body
            answered.add(row.leader)
            return True, answer_line(job_id, row.line, row.custom_id or "", body)
        if row.leader in self._failed:
            status, problem = self._failed[row.leader]
            own = replace(problem, line=row.line, custom_id=row.custom_id)
            return False, problem_line(job_id, own, status)
        if self.stopped is None:
            raise BrokenResult(f"Line {row.line} has no answer, and nobody stopped the job.")
        code = NEVER_RUN_CODES[self.stopped]
        return False, never_run_line(job_id, row.line, row.custom_id, code)

    def close(self) -> None:
        """Drop the answers."""
        self._responses.close()


def _failure(completion: Completion) -> tuple[int, Problem]:
    """Status and problem. Only what the engine says of the request itself reaches the client."""
    code = completion.error_code or "engine_error"
    if code in CALLERS_FAULTS and completion.error:
        return 400, Problem(0, code, completion.error)
    log.warning("line_failed", request=completion.request_id, code=code, reason=completion.error)
    return 500, Problem(0, code, "The engine could not run this line.")


def unanswered(job_id: str, plan: PlanFile, a: int, b: int, reason: StopReason) -> Iterator[Record]:
    """The lines of a range that was never committed, as error records in the input's order."""
    for row in sorted(plan.rows(a, b), key=lambda row: row.line):
        if row.problem is not None:
            text = problem_line(job_id, row.problem)
        else:
            text = never_run_line(job_id, row.line, row.custom_id, NEVER_RUN_CODES[reason])
        yield Record(row.line, False, Raw(text))
