"""Lines of ``/v1/completions`` with several prompts: one line, one result, whatever is split."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from engine.params import SamplingParams
from engine.prefix_order import pack_tokens
from storage.database.states import JobState
from worker.models.tokenizers import TextModels
from worker.plan.envelope import InputLine
from worker.plan.order import ChunkLimits, arrange, cut, shared_tokens
from worker.plan.plan_file import PlanFile, PlanHeader, encode_groups
from worker.plan.rows import PlannedLine, pack_params, request_places
from worker.plan.tokenize import LineTokenizer
from worker.problems import Problem

TEXT = "/v1/completions"
HEADER = PlanHeader(0, TEXT, "m", "tenant")
GREEDY = pack_params(SamplingParams(temperature=0))
POISON = 999


def planned(models: TextModels, **body: Any) -> PlannedLine | Problem:
    line = InputLine(7, "id", "smollm2", body)
    (result,) = LineTokenizer(TEXT, models, default_max_tokens=20).tokenize([line])
    return result


def row(line: int, *prompts: list[int], deterministic: bool = True) -> PlannedLine:
    packed = b"".join(map(pack_tokens, prompts))
    lengths = tuple(map(len, prompts)) if len(prompts) > 1 else ()
    return PlannedLine(line, f"id{line}", "m", packed, GREEDY, 10, deterministic, lengths)


def test_texts_and_tokens_make_one_line_whose_budget_counts_what_is_computed(
    models: TextModels,
) -> None:
    texts = planned(models, prompt=["a b", "c", "a b"], max_tokens=4, n=2, seed=1)
    assert isinstance(texts, PlannedLine)
    assert texts.lengths == (3, 2, 3)  # each begins with a token of the tokenizer's own
    assert texts.prompt_tokens == 8
    assert texts.budget == 5 + 2 * 2 * 4
    assert (texts.computed_tokens, texts.output_limit) == (5, 16)
    drawn = planned(models, prompt=[[5, 6], [5, 6]], max_tokens=4)
    assert isinstance(drawn, PlannedLine)
    assert drawn.budget == 4 + 2 * 4


@pytest.mark.parametrize(
    ("prompt", "code", "param"),
    [
        (["w", "w " * 60], "context_length_exceeded", "prompt[1]"),
        ([[1], [1_000]], "invalid_value", "prompt[1]"),
        ([[1], [2], [-1]], "invalid_value", "prompt[2]"),
    ],
)
def test_a_bad_prompt_is_named(models: TextModels, prompt: Any, code: str, param: str) -> None:
    problem = planned(models, prompt=prompt)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == (code, param)
    assert param in problem.message


def test_equal_prompts_are_one_request_only_where_a_second_run_gives_the_same() -> None:
    assert request_places("abac", distinct=True) == (0, 1, 0, 3)
    assert request_places("abac", distinct=False) == (0, 1, 2, 3)


def test_equal_lines_have_equal_prompts_in_equal_order() -> None:
    lines = [row(1, [5], [6, 7]), row(2, [5, 6], [7]), row(3, [5], [6, 7]), row(4, [5, 6, 7])]
    groups = arrange(lines, 1)
    assert sorted([line.line for line in group.lines] for group in groups) == [[1, 3], [2], [4]]


def test_a_chunk_holds_as_many_requests_as_it_may_and_never_a_part_of_a_line() -> None:
    groups = arrange([row(line, [line], [9, line], [9, line]) for line in range(1, 6)], 1)
    chunks = list(cut(groups, ChunkLimits(tokens=10_000, requests=5)))
    assert [len(chunk) for chunk in chunks] == [2, 2, 1]
    alone = list(cut(groups, ChunkLimits(tokens=10_000, requests=1)))
    assert [len(chunk) for chunk in alone] == [1] * 5


def test_the_saving_counts_each_prompt_beside_those_it_is_like() -> None:
    groups = arrange([row(1, [1, 1, 1], [2, 2, 2]), row(2, [1, 1, 3], [2, 2, 3])], 1)
    assert shared_tokens(groups, 1) == 4


def test_an_echo_keeps_the_text_of_each_prompt_and_tells_lines_apart(models: TextModels) -> None:
    texts = planned(models, prompt=["a  b", "a b"], echo=True, temperature=0)
    assert isinstance(texts, PlannedLine)
    assert texts.texts == ("a  b", "a b")
    assert len(texts.computed_prompts) == 2, "equal tokens, but other texts"
    assert not texts.scored
    ids = planned(models, prompt=[[5, 6], [7]], echo=True, logprobs=1, max_tokens=0)
    assert isinstance(ids, PlannedLine)
    assert (ids.texts, ids.scored, ids.budget) == (("w5 w6", "w7"), True, 3)
    assert ids.deterministic, "nothing is drawn"
    plan = PlanFile(encode_groups(HEADER, arrange([texts], 1)))
    assert plan.texts(0) == ["a  b", "a b"]
    others = [planned(models, prompt="a b", temperature=0, echo=echo) for echo in (True, False)]
    assert len(arrange([each for each in others if isinstance(each, PlannedLine)], 1)) == 2
    assert shared_tokens(arrange([ids, ids], 1), 1) == 0


def test_an_echo_of_logprobs_is_not_repeated_without_end(models: TextModels) -> None:
    prompt = [[5] * 60] * 20
    assert isinstance(planned(models, prompt=prompt, echo=True, n=128, max_tokens=0), PlannedLine)
    problem = planned(models, prompt=prompt, echo=True, logprobs=0, n=128, max_tokens=0)
    assert isinstance(problem, Problem)
    assert (problem.code, problem.param) == ("invalid_value", "echo")


def test_a_plan_file_gives_back_every_prompt_and_reads_files_without_several() -> None:
    lines = [row(1, [5], [6, 7], [5]), row(2, [8, 9]), row(3, [5], [6, 7], [5])]
    data = encode_groups(HEADER, arrange(lines, 1))
    plan = PlanFile(data)
    assert [plan.prompts(at) for at in (0, 1)] == [[(8, 9)], [(5,), (6, 7), (5,)]]
    assert [plan.num_prompts(at) for at in (0, 1)] == [1, 3]
    with pa.ipc.open_file(pa.py_buffer(data)) as reader:
        earlier = reader.get_batch(0).drop_columns(["lengths", "texts"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, earlier.schema) as writer:
        writer.write_batch(earlier)
    assert PlanFile(bytes(sink.getvalue().to_pybytes())).prompts(0) == [(8, 9)]


def test_a_line_with_several_prompts_has_one_result(
    bench: Any, line: Callable[..., dict[str, Any]]
) -> None:
    several = [[30, 2], [40, 3, 4], [30, 2]]
    job_id = bench.create(
        [
            line("several", several, n=2),
            line("one", [30, 2], n=2),
            line("again", several, n=2),
            line("drawn", [[7], [7]], temperature=1),
            line("bad", [[7], [7, 5_000]]),
            line("list of one", [[8, 8]]),
            line("echo", ["b a", "c"], echo=True),
        ]
    )
    job = bench.finish(job_id)
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 6, 1)
    bodies = {each["custom_id"]: each["response"]["body"] for each in bench.read(job.out_key)}
    for name in ("several", "again"):
        choices = bodies[name]["choices"]
        assert [choice["index"] for choice in choices] == list(range(6))
        assert [choice["text"] for choice in choices] == ["30 2"] * 2 + ["40 3 4"] * 2 + [
            "30 2"
        ] * 2
        assert bodies[name]["usage"]["prompt_tokens"] == 7
        assert bodies[name]["usage"]["completion_tokens"] == 3 * 2 * 2
    echoed = [choice["text"] for choice in bodies["echo"]["choices"]]
    assert echoed == ["b a1 100 99", "c1 101"]
    # The engine says that one token was cached; of an equal prompt and an equal line all are.
    cached = [
        bodies[name]["usage"]["prompt_tokens_details"]["cached_tokens"]
        for name in ("several", "again", "drawn")
    ]
    assert cached == [1 + 1 + 2, 7, 2]
    asked = [request.prompt for request in bench.lab.submitted]
    assert sorted(asked) == [
        (1, 100, 99),
        (1, 101),
        (7,),
        (7,),
        (8, 8),
        (30, 2),
        (30, 2),
        (40, 3, 4),
    ]
    (failed,) = bench.read(job.err_key)
    assert failed["response"]["body"]["error"]["param"] == "prompt[1]"
    usage = [body["usage"] for body in bodies.values()]
    for name in ("prompt_tokens", "completion_tokens"):
        counted = sum(getattr(chunk, name) for chunk in bench.chunks(job_id))
        assert counted == sum(each[name] for each in usage)


def test_one_prompt_that_ends_the_engine_is_its_lines_error_alone(
    make_bench: Callable[..., Any], line: Callable[..., dict[str, Any]]
) -> None:
    bench = make_bench(max_crashes=2)
    lines = [line(f"row{i}", [[i], [100 + i]]) for i in range(2, 9)]
    job_id = bench.create([*lines, line("poison", [[20], [POISON], [21]])])
    job = bench.finish(job_id)
    assert (job.n_ok, job.n_err) == (7, 1)
    (failed,) = bench.read(job.err_key)
    assert failed["custom_id"] == "poison"
    assert failed["response"]["body"]["error"]["code"] == "engine_crashed"
    answered = [each["custom_id"] for each in bench.read(job.out_key)]
    assert answered == [f"row{i}" for i in range(2, 9)]
