"""The plan's order: every line once, equals together, prefixes adjacent, chunks within limits."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.params import SamplingParams
from engine.prefix_order import common_prefix, depth_first, pack_tokens, saved_tokens
from worker.plan.order import ChunkLimits, arrange, cut, shared_tokens
from worker.plan.plan_file import PlanFile, PlanHeader, encode_groups, encode_problems
from worker.plan.rows import PlannedLine, pack_params, unpack_params, unpack_tokens
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
    grouped = [row.line for group in arrange(lines, 1) for row in group.lines]
    assert sorted(grouped) == [row.line for row in lines]


@given(inputs)
def test_only_equal_deterministic_lines_share_a_response(lines: list[PlannedLine]) -> None:
    leaders = []
    for group in arrange(lines, 1):
        first = group.leader
        key = (first.model, first.tokens, first.params)
        assert all((row.model, row.tokens, row.params) == key for row in group.lines)
        assert [row.line for row in group.lines] == sorted(row.line for row in group.lines)
        if first.deterministic:
            assert all(row.deterministic for row in group.lines)
            leaders.append(key)
        else:
            assert len(group.lines) == 1
    assert len(set(leaders)) == len(leaders), "equal lines are in two groups"


def test_a_sampled_line_is_never_taken_for_a_duplicate() -> None:
    lines = [_row(1, [5], deterministic=False), _row(2, [5], deterministic=False)]
    assert [len(group.lines) for group in arrange(lines, 1)] == [1, 1]


@given(inputs)
def test_models_are_not_mixed(lines: list[PlannedLine]) -> None:
    models = [group.leader.model for group in arrange(lines, 1)]
    assert models == sorted(models)


@given(inputs, limits)
def test_chunks_keep_order_and_limits(lines: list[PlannedLine], limit: ChunkLimits) -> None:
    groups = arrange(lines, 1)
    chunks = list(cut(groups, limit))
    assert [group for chunk in chunks for group in chunk] == groups
    for chunk in chunks:
        assert 1 <= len(chunk) <= limit.requests
        assert len({group.leader.model for group in chunk}) == 1
        assert len(chunk) == 1 or sum(group.leader.budget for group in chunk) <= limit.tokens


def test_a_full_chunk_is_cut_where_neighbours_have_least_in_common() -> None:
    prefixes = [[1] * 8, [2] * 8, [3] * 8]
    rows = [
        _row(10 * kind + number, [*prefix, number])
        for kind, prefix in enumerate(prefixes)
        for number in range(1, 5)
    ]
    groups = arrange(rows, 4)
    assert [len(chunk) for chunk in cut(groups, ChunkLimits(10_000, 7))] == [4, 4, 4]
    assert [len(chunk) for chunk in cut(groups, ChunkLimits(10_000, 4))] == [4, 4, 4]
    assert [len(chunk) for chunk in cut(groups, ChunkLimits(10_000, 100))] == [12]


def test_large_parameters_fill_a_chunk_once() -> None:
    def chunks(*params: str) -> list[int]:
        rows = [replace(_row(line, [line]), params=text) for line, text in enumerate(params, 1)]
        return [len(chunk) for chunk in cut(arrange(rows, 1), ChunkLimits(1_500, 100))]

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
    groups = arrange([_row(1, [*shared, 50]), _row(2, [*shared, 60]), _row(3, shared[:5])], 4)
    # The two long ones have 8 in common, the short one shares a block of 4 with them.
    assert shared_tokens(groups, 4) == 12
    repeated = [_row(1, shared, deterministic=False), _row(2, shared, deterministic=False)]
    assert shared_tokens(arrange(repeated, 4), 4) == 4


def cached(prompts: list[bytes], block: int) -> int:
    """What a cache that never forgets would save, by its definition."""
    known: set[tuple[int, ...]] = set()
    saved = 0
    for prompt in prompts:
        tokens = tuple(unpack_tokens(prompt).tolist())
        blocks = [tokens[:end] for end in range(block, len(tokens) + 1, block)]
        hits = 0
        while hits < len(blocks) and blocks[hits] in known:
            hits += 1
        saved += min(hits, (len(tokens) - 1) // block) * block
        known.update(blocks)
    return saved


deep = st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=14).map(pack_tokens), max_size=40)


@given(deep, st.sampled_from([1, 2, 4]), st.data())
def test_a_walk_takes_every_prompt_once_and_saves_all_that_can_be_saved(
    found: list[bytes], block: int, data: st.DataObject
) -> None:
    outputs = [data.draw(st.integers(1, 9)) for _ in found]
    walk = depth_first(found, outputs, block)
    assert sorted(walk) == list(range(len(found)))
    ordered = [found[index] for index in walk]
    assert saved_tokens(ordered, block) == cached(ordered, block)
    # Of two prompts where one begins the other, the second computes its last block anew.
    assert abs(cached(ordered, block) - cached(sorted(found), block)) <= block * len(found)


@given(deep, st.data())
def test_a_prefix_is_never_left_and_met_again(found: list[bytes], data: st.DataObject) -> None:
    outputs = [data.draw(st.integers(1, 9)) for _ in found]
    ordered = [found[index] for index in depth_first(found, outputs, 1)]
    left: set[bytes] = set()
    before: set[bytes] = set()
    for prompt in ordered:
        prefixes = {prompt[:end] for end in range(4, len(prompt) + 1, 4)}
        assert not prefixes & left
        left |= before - prefixes
        before = prefixes


def test_the_longest_outputs_come_first_on_every_level() -> None:
    prompts = [pack_tokens(ids) for ids in ([1, 1], [1, 2], [2, 1], [2, 2], [3, 3])]
    assert depth_first(prompts, [1, 5, 9, 2, 7], 1) == [2, 3, 4, 1, 0]
    assert depth_first(prompts, [1, 1, 1, 1, 1], 1) == [0, 1, 2, 3, 4]


@given(inputs)
def test_a_plan_file_gives_back_what_was_planned(lines: list[PlannedLine]) -> None:
    groups = arrange(lines, 1)
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
        assert plan.prompts(leader) == [tuple(unpack_tokens(group.leader.tokens).tolist())]
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
