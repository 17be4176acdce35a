"""A claimed chunk: its requests, the completions that came for them, and its part.

A line with several prompts is several requests to the engine and one result.
"""

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import structlog
from msgspec import Raw

from engine.config import EngineConfig
from engine.prefix_order import depth_first, pack_tokens
from engine.requests import Completion, Request
from storage.database.states import StopReason
from storage.database.tables import Chunk
from storage.jobs.chunks import Counts
from worker.endpoints.registry import ENDPOINTS
from worker.endpoints.response_fields import as_duplicate, joined
from worker.endpoints.result_lines import never_run_line, output_line, problem_line
from worker.errors import BrokenResult, ModelUnavailable
from worker.plan.plan_file import PlanFile, PlanRow
from worker.problems import Problem
from worker.run.line_requests import LineRequests
from worker.run.parts import Record, encode_record
from worker.run.response_spool import ResponseSpool

log = structlog.get_logger(__name__)

CLIENT_ERROR_CODES = frozenset({"context_length_exceeded", "invalid_request"})

NEVER_RUN_CODES = {
    StopReason.CANCELLED: "batch_cancelled",
    StopReason.EXPIRED: "batch_expired",
    StopReason.BROKEN: "batch_failed",
}


class ChunkRun:
    """The state of one chunk while this process runs it.

    Every distinct request is computed once; a line gets the response of its leader. If a split cut
    a group of duplicates, the leader may lie outside ``[a, b)``: its prompt is in the plan file all
    the same, and this chunk computes it for its own lines.

    Attributes:
        pending: distinct requests that have no completion yet.
        counts: of the lines that have a result so far. Replaced as a whole, so that another thread
            may read it.
        stopped: why the lines that have no result yet will not be run, if they will not.
    """

    def __init__(self, chunk: Chunk, plan: PlanFile) -> None:
        self.chunk = chunk
        self.plan = plan
        self.stopped: StopReason | None = None
        self._endpoint = ENDPOINTS[plan.header.endpoint]
        self._failed: dict[int, tuple[int, Problem]] = {}  # leader → HTTP status and problem
        self._rows = sorted(plan.rows(chunk.a, chunk.b), key=lambda row: row.line)
        self._responses = ResponseSpool()
        self._waiting_lines = Counter(row.leader for row in self._rows if row.problem is None)
        self._asked = {at: LineRequests.of(plan, at) for at in sorted(self._waiting_lines)}
        self.counts = Counts(err=len(self._rows) - self._waiting_lines.total())
        self.pending = sum(len(asked.waiting) for asked in self._asked.values())

    def requests(self) -> list[Request]:
        """What is to be computed, in the plan's order; each prompt beside those it is like."""
        plan, found = self.plan, []
        for position, places in self._waiting():
            prompts, params = plan.prompts(position), plan.params(position)
            for place in places:
                found.append(
                    Request(
                        id=self._request_id(position, place),
                        prompt=prompts[place],
                        params=params,
                        salt=plan.header.salt,
                        continues=self._endpoint.continues,
                    )
                )
        if len(found) == len(self._waiting_lines):
            return found
        # The plan's order is that of the lines' first prompts.
        order = depth_first(
            [pack_tokens(request.prompt) for request in found],
            [(each.params.max_tokens or 0) * each.params.num_generated for each in found],
            EngineConfig().block_size,
        )
        return [found[index] for index in order]

    def pending_ids(self) -> list[str]:
        """The ids of requests that have no completion yet."""
        return [
            self._request_id(position, place)
            for position, places in self._waiting()
            for place in places
        ]

    def _waiting(self) -> Iterator[tuple[int, list[int]]]:
        """Plan positions, and the prompts of each that have no completion yet."""
        for position, asked in self._asked.items():
            if position in self._waiting_lines:
                yield position, sorted(asked.waiting)

    def _request_id(self, position: int, place: int) -> str:
        # With the attempt: a completion of an earlier attempt is not taken for one of this.
        return f"{self.chunk.id}/{self.chunk.attempt}/{position}.{place}"

    def accept(self, completion: Completion) -> None:
        """Take the completion of one of `requests`; a second one of the same request is ignored."""
        name = completion.request_id.rpartition("/")[2]
        position, place = map(int, name.split("."))
        asked = self._asked.get(position)
        if asked is None or position not in self._waiting_lines or place not in asked.waiting:
            return
        asked.waiting.remove(place)
        self.pending -= 1
        reasons = {output.finish_reason for output in completion.outputs}
        if completion.error is None and reasons <= {"stop", "length"} and reasons:
            self._responses.add((position, place), self._respond(position, place, completion))
            asked.take(place, completion)
        else:
            asked.failed = True
            if "cancelled" not in reasons:
                self._fail(position, place, completion)
        if not asked.waiting:
            self._count(asked, self._waiting_lines.pop(position))

    def _fail(self, position: int, place: int, completion: Completion) -> None:
        """Keep why a request could not be run; of several, the first prompt's reason."""
        status, problem = _failure(completion)
        asked = self._asked[position]
        if len(asked.places) > 1:
            name = f"{self._endpoint.prompt_param}[{place}]"
            problem = replace(problem, message=f"{name}: {problem.message}", param=name)
        if asked.failed_place is None or place < asked.failed_place:
            asked.failed_place = place
            self._failed[position] = status, problem

    def _respond(self, position: int, place: int, completion: Completion) -> dict[str, Any]:
        """The response body for one prompt of a line."""
        endpoint = self._endpoint
        body = endpoint.respond(completion, self.chunk.model, int(time.time()))
        texts = self.plan.texts(position)
        if texts and endpoint.echo is not None:
            return endpoint.echo(body, completion, texts[place])
        return body

    def _count(self, asked: LineRequests, lines: int) -> None:
        """Count equal lines whose requests all have their completions."""
        counts, line = self.counts, asked.counts
        if asked.failed:
            self.counts = replace(counts, err=counts.err + lines)
            return
        # For a duplicate all of its prompts count as cached.
        cached = line.cached_tokens + line.prompt_tokens * (lines - 1)
        self.counts = replace(
            counts,
            ok=counts.ok + lines,
            prompt_tokens=counts.prompt_tokens + line.prompt_tokens * lines,
            cached_tokens=counts.cached_tokens + cached,
            completion_tokens=counts.completion_tokens + line.completion_tokens * lines,
            generated_tokens=counts.generated_tokens + line.generated_tokens,
        )

    def refuse(self, error: ModelUnavailable) -> None:
        """Give every line that has no result yet this error: its model cannot be loaded."""
        problem = Problem(0, error.code, str(error), "model")
        self._failed |= dict.fromkeys(self._waiting_lines, (400, problem))
        self._wait_for_no_more()

    def give_up(self, reason: StopReason) -> None:
        """Wait for no more completions: lines without one get an error with the reason."""
        self.stopped = reason
        self._wait_for_no_more()

    def _wait_for_no_more(self) -> None:
        self.counts = replace(self.counts, err=self.counts.err + self._waiting_lines.total())
        self._waiting_lines.clear()
        self.pending = 0

    def records(self) -> Iterator[bytes]:
        """The part: one encoded record a line, in the input's order.

        Raises:
            BrokenResult: a line has no result, and the job was not stopped.
        """
        written: set[int] = set()
        for row in self._rows:
            ok, text = self._result(row, written)
            yield encode_record(row.line, ok, text)

    def _result(self, row: PlanRow, written: set[int]) -> tuple[bool, bytes]:
        """Whether the line goes to the output file, and its text; ``written`` are past leaders."""
        job_id, origin = self.chunk.job_id, self.plan.origins.of(row.line)
        if row.problem is not None:
            return False, problem_line(job_id, row.problem, origin=origin)
        body = self._body(row.leader)
        if body is not None:
            body = as_duplicate(body) if row.leader in written else body
            written.add(row.leader)
            prefix = self._endpoint.id_prefix
            return True, output_line(job_id, row.line, row.custom_id or "", body, prefix)
        if row.leader in self._failed:
            status, problem = self._failed[row.leader]
            own = replace(problem, line=row.line, custom_id=row.custom_id)
            return False, problem_line(job_id, own, status, origin)
        if self.stopped is None:
            raise BrokenResult(f"Line {row.line} has no result, and nobody stopped the job.")
        code = NEVER_RUN_CODES[self.stopped]
        return False, never_run_line(job_id, row.line, row.custom_id, code, origin)

    def _body(self, leader: int) -> dict[str, Any] | None:
        """The response body of a line, if all of its requests have outputs."""
        bodies: list[dict[str, Any]] = []
        for place, source in enumerate(self._asked[leader].places):
            body = self._responses.get((leader, source))
            if body is None:
                return None
            bodies.append(body if source == place else as_duplicate(body))
        return bodies[0] if len(bodies) == 1 else joined(bodies)

    def close(self) -> None:
        """Drop the response bodies."""
        self._responses.close()


def _failure(completion: Completion) -> tuple[int, Problem]:
    """HTTP status and problem. Clients see the engine's message only if it is their fault."""
    code = completion.error_code or "engine_error"
    if code in CLIENT_ERROR_CODES and completion.error:
        return 400, Problem(0, code, completion.error)
    log.warning("line_failed", request=completion.request_id, code=code, reason=completion.error)
    return 500, Problem(0, code, "The engine could not run this line.")


def never_run(job_id: str, plan: PlanFile, a: int, b: int, reason: StopReason) -> Iterator[Record]:
    """Error records of plan positions ``[a, b)``, which were not run, in the input's order."""
    for row in sorted(plan.rows(a, b), key=lambda row: row.line):
        origin = plan.origins.of(row.line)
        if row.problem is not None:
            text = problem_line(job_id, row.problem, origin=origin)
        else:
            code = NEVER_RUN_CODES[reason]
            text = never_run_line(job_id, row.line, row.custom_id, code, origin)
        yield Record(row.line, False, Raw(text))
