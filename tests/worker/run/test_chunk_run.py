"""One chunk's bookkeeping: what it asks for, what it takes, what it writes."""

from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest

from engine.params import SamplingParams
from engine.requests import Completion, Output
from storage.database.states import StopReason
from storage.database.tables import Chunk
from worker.errors import BrokenResult
from worker.plan.order import arrange
from worker.plan.plan_file import PlanFile, PlanHeader, encode_groups
from worker.plan.rows import PlannedLine, pack_params, pack_tokens
from worker.run.chunk_run import ChunkRun
from worker.run.response_spool import ResponseSpool

MakeRun = Callable[..., ChunkRun]

GREEDY = pack_params(SamplingParams(temperature=0))


@pytest.fixture
def make_run() -> Iterator[Callable[..., ChunkRun]]:
    """Lines 1, 3, 4 are equal, line 2 comes before them in prefix order."""
    rows = [
        PlannedLine(line, f"id{line}", "m", pack_tokens(tokens), GREEDY, 9, True)
        for line, tokens in [(1, [7, 8]), (2, [5]), (3, [7, 8]), (4, [7, 8])]
    ]
    header = PlanHeader(0, "/v1/completions", "m", "tenant")
    plan = PlanFile(encode_groups(header, arrange(rows, 16)))
    runs: list[ChunkRun] = []

    def make(a: int = 0, b: int = 4) -> ChunkRun:
        chunk = Chunk(
            id="chunk_1",
            job_id="batch_1",
            a=a,
            b=b,
            model="m",
            attempt=3,
            plan_key="",
            plan_a=0,
            first_line=1,
            last_line=4,
        )
        runs.append(ChunkRun(chunk, plan))
        return runs[-1]

    yield make
    for run in runs:
        run.close()


def _completion(request_id: str, reason: Any = "stop", **fields: Any) -> Completion:
    outputs = (Output(0, (1,), "text", reason),)
    return Completion(request_id, (7, 8), outputs, **fields)


def _records(run: ChunkRun) -> list[dict[str, Any]]:
    return [orjson.loads(record) for record in run.records()]


def test_each_distinct_request_is_asked_for_once(make_run: MakeRun) -> None:
    run = make_run()
    assert [request.prompt for request in run.requests()] == [(5,), (7, 8)]
    assert {request.salt for request in run.requests()} == {"tenant"}
    assert all(request.continues for request in run.requests())  # as completions do
    assert all(request.id.startswith("chunk_1/3/") for request in run.requests())


def test_half_of_a_split_computes_its_share_of_equal_lines(make_run: MakeRun) -> None:
    run = make_run(2, 4)
    (request,) = run.requests()
    assert request.prompt == (7, 8)
    run.accept(_completion(request.id))
    assert [record["line"] for record in _records(run)] == [3, 4]


def test_a_completion_goes_to_every_equal_line_and_counts_for_each(make_run: MakeRun) -> None:
    run = make_run()
    small, large = run.requests()
    run.accept(_completion(small.id, cached_tokens=0))
    run.accept(_completion(large.id, cached_tokens=1))
    run.accept(_completion(large.id, cached_tokens=1))  # told twice
    records = _records(run)
    assert [record["line"] for record in records] == [1, 2, 3, 4]
    assert run.counts.ok == 4
    assert run.counts.prompt_tokens == 8
    assert run.counts.cached_tokens == 0 + 1 + 2 + 2
    usage = [record["text"]["response"]["body"]["usage"] for record in records]
    assert sum(count["prompt_tokens"] for count in usage) == run.counts.prompt_tokens
    cached = [count["prompt_tokens_details"]["cached_tokens"] for count in usage]
    assert sum(cached) == run.counts.cached_tokens


@pytest.mark.parametrize(
    ("code", "status"), [("context_length_exceeded", 400), ("out_of_cache", 500)]
)
def test_a_request_that_the_engine_refuses_is_an_error_of_each_equal_line(
    make_run: MakeRun, code: str, status: int
) -> None:
    run = make_run(1, 4)
    (request,) = run.requests()
    run.accept(Completion(request.id, (7, 8), (), error="Why.", error_code=code))
    records = _records(run)
    assert [record["ok"] for record in records] == [False] * 3
    assert {record["text"]["response"]["status_code"] for record in records} == {status}
    messages = {record["text"]["response"]["body"]["error"]["message"] for record in records}
    # Only what is said of the request itself is for the client.
    assert messages == {"Why." if status == 400 else "The engine could not run this line."}
    assert [record["text"]["tidemill"]["line"] for record in records] == [1, 3, 4]
    errors = [record["text"]["response"]["body"]["error"] for record in records]
    assert all(tuple(error) == ("message", "type", "param", "code") for error in errors)
    assert run.counts.err == 3


def test_giving_up_keeps_what_is_complete(make_run: MakeRun) -> None:
    run = make_run()
    small, large = run.requests()
    run.accept(_completion(small.id))
    run.give_up(StopReason.EXPIRED)
    run.accept(_completion(large.id, "cancelled"))
    assert run.pending == 0
    assert (run.counts.ok, run.counts.err) == (1, 3)
    assert [record["ok"] for record in _records(run)] == [False, True, False, False]


def test_a_line_without_a_completion_is_never_written_as_if_it_had_one(make_run: MakeRun) -> None:
    with pytest.raises(BrokenResult):
        _records(make_run())


def test_large_responses_lie_on_disk_and_come_back() -> None:
    spool = ResponseSpool(memory_bytes=100)
    for position in range(20):
        spool.add((position, 1), {"text": "é" * position})
    assert [spool.get((position, 1)) for position in (19, 0, 7)] == [
        {"text": "é" * size} for size in (19, 0, 7)
    ]
    assert spool.get((19, 0)) is None
    spool.close()


@pytest.fixture
def several() -> Iterator[ChunkRun]:
    """Lines 1 and 2, equal, of four prompts, of which two are equal."""
    prompts = [[7, 8], [5], [7, 8], [6]]
    packed, lengths = pack_tokens([id_ for ids in prompts for id_ in ids]), tuple(map(len, prompts))
    rows = [PlannedLine(i, f"id{i}", "m", packed, GREEDY, 9, True, lengths) for i in (1, 2)]
    plan = PlanFile(
        encode_groups(PlanHeader(0, "/v1/completions", "m", "tenant"), arrange(rows, 16))
    )
    fields: dict[str, Any] = {"plan_key": "", "plan_a": 0, "first_line": 1, "last_line": 2}
    chunk = Chunk(id="chunk_1", job_id="batch_1", a=0, b=2, model="m", attempt=3, **fields)
    run = ChunkRun(chunk, plan)
    yield run
    run.close()


def _told(run: ChunkRun, error: dict[int, str], order: list[int]) -> None:
    """The completions of these prompts, by their first token, some of them refused."""
    requests = {request.prompt[0]: request for request in run.requests()}
    assert sorted(requests) == [5, 6, 7]
    for first in order:
        request = requests[first]
        outputs = () if first in error else (Output(0, (1,), f"after {first}", "stop"),)
        code = "context_length_exceeded" if first in error else None
        run.accept(
            Completion(request.id, request.prompt, outputs, error=error.get(first), error_code=code)
        )


def test_a_line_of_several_prompts_waits_for_all_of_them(several: ChunkRun) -> None:
    assert several.pending == 3
    _told(several, {}, [6, 7])
    assert (several.pending, several.counts.ok) == (1, 0)
    assert several.pending_ids() == ["chunk_1/3/0.1"]
    (last,) = several.requests()
    several.accept(_completion(last.id))
    several.accept(_completion(last.id))
    assert (several.pending, several.counts.ok) == (0, 2)
    texts = [
        [choice["text"] for choice in record["text"]["response"]["body"]["choices"]]
        for record in _records(several)
    ]
    assert texts == [["after 7", "text", "after 7", "after 6"]] * 2


@pytest.mark.parametrize("order", [[5, 6, 7], [7, 6, 5]])
def test_the_first_prompt_that_cannot_be_run_is_named(several: ChunkRun, order: list[int]) -> None:
    _told(several, {5: "Too long.", 6: "Too long as well."}, order)
    assert (several.pending, several.counts.ok, several.counts.err) == (0, 0, 2)
    assert several.counts.prompt_tokens == 0, "usage is of lines that have a response"
    for record in _records(several):
        error = record["text"]["response"]["body"]["error"]
        assert (error["param"], error["message"]) == ("prompt[1]", "prompt[1]: Too long.")


def test_what_is_half_done_when_a_job_stops_was_not_run(several: ChunkRun) -> None:
    _told(several, {}, [7, 5])
    several.give_up(StopReason.CANCELLED)
    assert (several.pending, several.counts.ok, several.counts.err) == (0, 0, 2)
    codes = [record["text"]["error"]["code"] for record in _records(several)]
    assert codes == ["batch_cancelled"] * 2
