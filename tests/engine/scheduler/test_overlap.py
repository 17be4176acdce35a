"""Steps that overlap: every request gets what it gets without a cache, a batch or steps in flight.

The engine's own loop and scheduler run; the device and its model are made up (`overlap`).
"""

from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.output import FinishedRequest
from engine.params import SamplingParams
from engine.requests import Completion, Request
from overlap import BLOCK, CONTEXT, VOCAB, Device, Fault, expected, make_core, placement

WHOLE = CONTEXT // BLOCK  # blocks of the longest sequence


@dataclass(frozen=True)
class Case:
    """What is asked of an engine, and how it is set up.

    ``arrivals`` and ``cancels`` are by step: requests, and the numbers of those to be cancelled.
    """

    arrivals: list[list[Request]]
    cancels: dict[int, int] = field(default_factory=dict)
    faults: frozenset[int] = frozenset()
    spare_blocks: int = 0
    max_num_seqs: int = 8
    budget: int = 16
    by_slot: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def requests(self) -> list[Request]:
        return [request for batch in self.arrivals for request in batch]


tokens = st.integers(0, 2)
prefixes = st.sampled_from([[], [1, 2, 1, 2], [1] * 9, [2, 1, 0, 1, 2, 2, 1, 1, 0, 1, 2, 0]])
parameters = st.builds(
    SamplingParams,
    max_tokens=st.one_of(st.integers(1, 24), st.just(24), st.none()),
    min_tokens=st.just(0) | st.just(1),
    stop_token_ids=st.lists(st.integers(1, VOCAB - 1), max_size=1).map(tuple),
    ignore_eos=st.booleans(),
    n=st.sampled_from([1, 1, 2, 3]),
)


@st.composite
def cases(draw: st.DrawFn, *, faults: bool = False) -> Case:
    arrivals: list[list[Request]] = []
    number = 0
    for size in draw(st.lists(st.integers(0, 4), min_size=1, max_size=8)):
        arrivals.append([])
        for _ in range(size):
            tail = draw(st.lists(tokens, min_size=1, max_size=12))
            prompt = tuple(draw(prefixes) + tail)
            salt = draw(st.sampled_from(["", "", "b"]))
            arrivals[-1].append(Request(str(number), prompt, draw(parameters), salt))
            number += 1
    return Case(
        arrivals,
        cancels=draw(st.dictionaries(st.integers(1, 30), st.integers(0, 15), max_size=4)),
        faults=draw(st.frozensets(st.integers(0, 40), max_size=2)) if faults else frozenset(),
        spare_blocks=draw(st.integers(0, 16)),
        max_num_seqs=draw(st.integers(1, 8)),
        budget=draw(st.integers(8, 40)),
        by_slot=draw(st.booleans()),
        settings={
            "block_size": BLOCK,
            "prefix_caching": draw(st.sampled_from([True, True, False])),
            "chunked_prefill": draw(st.booleans()),
            "output_reserve": draw(st.sampled_from([0.0, 0.0, 0.5, 1.0])),
            "batching": draw(st.sampled_from(["continuous", "continuous", "static"])),
        },
    )


def start(case: Case, max_in_flight: int, lookahead: int = 1) -> tuple[EngineCore, Device]:
    size = placement(WHOLE + case.spare_blocks, case.max_num_seqs, case.budget)
    by_slot = case.by_slot or lookahead > 1
    device = Device(size, max_in_flight, lookahead=lookahead, by_slot=by_slot, faults=case.faults)
    return make_core(EngineConfig(**case.settings), device), device


def drive(core: EngineCore, case: Case, limit: int = 5_000) -> dict[str, Completion]:
    """Run all requests to their ends."""
    finished: list[FinishedRequest] = []
    for number in range(limit):
        if number < len(case.arrivals):
            for request in case.arrivals[number]:
                core.add(request)
        else:
            core.flush()
            if not core.has_work:
                completions = [each.completion() for each in finished]
                assert len(completions) == len(case.requests)
                return {completion.request_id: completion for completion in completions}
        if number in case.cancels:
            finished += core.cancel([str(case.cancels[number])])
            core.check()
        with suppress(Fault):
            finished += core.step()
        core.check()
    raise AssertionError(f"not done after {limit} steps: {len(finished)} finished")


def verify(core: EngineCore, case: Case, completions: dict[str, Completion]) -> None:
    for request in case.requests:
        completion = completions[request.id]
        assert completion.error is None
        assert len(completion.outputs) == request.params.n
        for output in completion.outputs:
            ids, reason = expected(request, output.index)
            if output.finish_reason == "cancelled":
                assert int(request.id) in case.cancels.values()
                assert output.token_ids == ids[: len(output.token_ids)]
            else:
                assert (output.token_ids, output.finish_reason) == (ids, reason)
    stats = core.stats()
    assert (stats.waiting, stats.running) == (0, 0)
    assert stats.free_blocks == stats.total_blocks
    assert stats.finished == len(case.requests)


@pytest.mark.parametrize("max_in_flight", [0, 1, 2])
@given(case=cases())
@settings(max_examples=150, deadline=None)
def test_every_output_is_right_with_steps_in_flight(max_in_flight: int, case: Case) -> None:
    core, device = start(case, max_in_flight)
    verify(core, case, drive(core, case))
    assert device.most_in_flight <= max_in_flight + 1
    assert max_in_flight or not device.unknown_tokens


@pytest.mark.parametrize("max_in_flight", [0, 1, 2])
@given(case=cases(faults=True))
@settings(max_examples=75, deadline=None)
def test_a_failed_step_costs_no_output(max_in_flight: int, case: Case) -> None:
    core, _ = start(case, max_in_flight)
    verify(core, case, drive(core, case))


@given(case=cases(), lookahead=st.integers(2, 5))
@settings(max_examples=75, deadline=None)
def test_several_tokens_a_step_end_where_one_at_a_time_would(case: Case, lookahead: int) -> None:
    core, _ = start(case, 0, lookahead)
    verify(core, case, drive(core, case))


def hungry(number: int, **settings: Any) -> Case:
    """Requests of 36 tokens, of which few fit the pool at once."""
    params = SamplingParams(max_tokens=24, ignore_eos=True)
    requests = [Request(str(i), (1,) * 8 + (i % 3,) * 4, params) for i in range(number)]
    defaults: dict[str, Any] = {"block_size": BLOCK, "output_reserve": 0.0}
    return Case([requests], spare_blocks=8, budget=64, settings=defaults | settings)


@pytest.mark.parametrize("max_in_flight", [0, 1, 2])
def test_under_memory_pressure_steps_overlap_and_preempt(max_in_flight: int) -> None:
    case = hungry(6)
    core, device = start(case, max_in_flight)
    verify(core, case, drive(core, case))
    assert core.stats().preemptions > 0
    assert device.most_in_flight == max_in_flight + 1
    assert (device.unknown_tokens > 0) == (max_in_flight > 0)


def test_a_cancelled_sequence_holds_its_blocks_until_its_step_is_collected() -> None:
    case = hungry(1)
    core, _ = start(case, 1)
    core.add(case.requests[0])
    assert core.step() == []  # its prompt is in flight
    (cancelled,) = core.cancel(["0"])
    assert core.stats().running == 0
    assert core.stats().free_blocks < core.stats().total_blocks
    core.check()
    assert core.has_work
    assert core.step() == []
    assert core.stats().free_blocks == core.stats().total_blocks
    assert not core.has_work
    assert cancelled.completion().outputs[0].token_ids == ()


def test_the_prefix_cache_serves_what_overlapping_steps_have_computed() -> None:
    case = hungry(1)
    core, _ = start(case, 1)
    first = drive(core, case)["0"]
    again = Request("1", first.prompt_token_ids + first.outputs[0].token_ids[:20])
    core.add(again)
    finished = []
    while core.has_work:
        finished += core.step()
    # Of 32 tokens at least one is computed, so that there are logits.
    assert finished[0].completion().cached_tokens == 28
