"""The plan's order: every line once, equals together, prefixes adjacent, chunks within limits."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.params import SamplingParams
from worker.plan.order import ChunkLimits, arrange, common_prefix, cut, shared_tokens
from worker.plan.plan_file import PlanFile, PlanHeader, encode_groups, encode_problems
from worker.plan.rows import PlannedLine, pack_params, pack_tokens, unpack_params, unpack_tokens
from worker.problems import Problem

HEADER = PlanHeader(start=100, endpoint="/v1/completions", source="smollm2", salt="tenant")
GREEDY = pack_params(SamplingParams(temperature=0))

prompts = st.lists(st.integers(0, 3), min_size=1, max_size=5).map(pack_tokens)
rows = st.builds(
    PlannedLine,
    line=st.just(0),
    custom_id=st.text(max_size=3),
    model=st.sampled_from(["a", "b"]),
    tokens=prompts,
    params=st.sampled_from([GREEDY, pack_params(SamplingParams(temperature=0, n=2))]),
    budget=st.integers(1, 30),
    deterministic=st.booleans(),
)
inputs = st.lists(rows, max_size=60).map(
    lambda found: [replace(row, line=number) for number, row in enumerate(found, 1)]
)
limits = st.builds(ChunkLimits, tokens=st.integers(1, 60), requests=st.integers(1, 8))


def _row(line: int, tokens: list[int], *, deterministic: bool = True) -> PlannedLine:
    return PlannedLine(line, f"id{line}", "a", pack_tokens(tokens), GREEDY, 10, deterministic)


@given(inputs)
def test_every_line_is_in_exactly_one_group(lines: list[PlannedLine]) -> None:
    grouped = [row.line for group in arrange(lines) for row in group.lines]
    assert sorted(grouped) == [row.line for row in lines]


@given(inputs)
def test_only_equal_deterministic_lines_share_an_answer(lines: list[PlannedLine]) -> None:
    leaders = []
    for group in arrange(lines):
        first = group.leader
        key = (first.model, first.tokens, first.params)
        assert all((row.model, row.tokens, row.params) == key for row in group.lines)
        assert [row.line for row in group.lines] == sorted(row.line for row in group.lines)
        if all(row.deterministic for row in group.lines):
            leaders.append(key)
        else:
            assert len(group.lines) == 1 or first.deterministic
    if all(row.deterministic for row in lines):
        assert len(set(leaders)) == len(leaders), "equal lines are in two groups"


def test_a_sampled_line_is_never_taken_for_a_duplicate() -> None:
    lines = [_row(1, [5], deterministic=False), _row(2, [5], deterministic=False)]
    assert [len(group.lines) for group in arrange(lines)] == [1, 1]


@given(inputs)
def test_the_order_is_lexicographic_over_token_ids(lines: list[PlannedLine]) -> None:
    for model in ("a", "b"):
        found = [
            unpack_tokens(group.leader.tokens).tolist()
            for group in arrange(lines)
            if group.leader.model == model
        ]
        assert found == sorted(found)


@given(inputs, limits)
def test_chunks_keep_order_and_limits(lines: list[PlannedLine], limit: ChunkLimits) -> None:
    groups = arrange(lines)
    chunks = list(cut(groups, limit))
    assert [group for chunk in chunks for group in chunk] == groups
    for chunk in chunks:
        assert 1 <= len(chunk) <= limit.requests
        assert len({group.leader.model for group in chunk}) == 1
        assert len(chunk) == 1 or sum(group.leader.budget for group in chunk) <= limit.tokens


def test_large_parameters_fill_a_chunk_once() -> None:
    def chunks(*params: str) -> list[int]:
        rows = [replace(_row(line, [line]), params=text) for line, text in enumerate(params, 1)]
        return [len(chunk) for chunk in cut(arrange(rows), ChunkLimits(1_500, 100))]

    assert chunks("a" * 4_000, "a" * 4_000, "a" * 4_000) == [3]
    assert chunks("a" * 4_000, "b" * 4_000, "b" * 4_000) == [1, 2]


@given(prompts, prompts)
def test_common_prefix_counts_equal_leading_tokens(first: bytes, second: bytes) -> None:
    expected = 0
    for one, two in zip(unpack_tokens(first), unpack_tokens(second), strict=False):
        if one != two:
            break
        expected += 1
    assert common_prefix(first, second) == expected


def test_the_expected_saving_counts_whole_blocks_and_never_the_last_token() -> None:
    shared = list(range(8))
    groups = arrange([_row(1, [*shared, 50]), _row(2, [*shared, 60]), _row(3, shared[:5])])
    # [0..4] comes first; the next shares 5 of it and the last one 8: blocks of 4 keep 4 and 8.
    assert shared_tokens(groups, block_size=4) == 12
    repeated = arrange([_row(1, shared, deterministic=False), _row(2, shared, deterministic=False)])
    assert shared_tokens(repeated, block_size=4) == 4


@given(inputs)
def test_a_plan_file_gives_back_what_was_planned(lines: list[PlannedLine]) -> None:
    groups = arrange(lines)
    if not groups:
        return
    plan = PlanFile(encode_groups(HEADER, groups))
    assert plan.header == HEADER
    position = HEADER.start
    for group in groups:
        leader = position
        for row in group.lines:
            (found,) = plan.rows(position, position + 1)
            assert (found.line, found.custom_id) == (row.line, row.custom_id)
            assert (found.leader, found.problem) == (leader, None)
            position += 1
        assert plan.prompt(leader) == tuple(unpack_tokens(group.leader.tokens).tolist())
        assert plan.params(leader) == unpack_params(group.leader.params)


def test_a_plan_file_keeps_problems() -> None:
    problems = [Problem(4, "code", "Why – ü.", "param", "id"), Problem(9, "code", "No id.")]
    plan = PlanFile(encode_problems(HEADER, problems))
    assert [row.problem for row in plan.rows(100, 102)] == problems


def test_every_sampling_option_survives_the_plan_file() -> None:
    params = SamplingParams(
        max_tokens=7,
        logit_bias={5: -1.5},
        stop=("a", "b"),
        stop_token_ids=(1,),
        seed=2**63,
        logprobs=3,
        ignore_eos=True,
    )
    assert unpack_params(pack_params(params)) == params
