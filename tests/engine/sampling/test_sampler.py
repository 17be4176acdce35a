"""Sampling: each parameter against its definition, computed here the plain way."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import InvalidRequest
from engine.kernels.reference.backend import ReferenceBackend
from engine.params import SamplingParams
from engine.sampling.sampler import Sampler
from engine.scheduler.step import Admission, SampledToken

VOCAB = 32
END = 31


def make(seed: int | None = 0) -> Sampler:
    return Sampler(VOCAB, 8, [END], torch.device("cpu"), seed, ReferenceBackend().draw)


def admit(
    sampler: Sampler,
    slot: int,
    params: SamplingParams,
    prompt: tuple[int, ...] = (0,),
    outputs: tuple[int, ...] = (),
    index: int = 0,
) -> None:
    sampler.admit(slot, Admission(params, index, prompt, outputs))


def one(
    params: SamplingParams,
    logits: torch.Tensor,
    prompt: tuple[int, ...] = (0,),
    outputs: tuple[int, ...] = (),
) -> SampledToken:
    sampler = make()
    admit(sampler, 0, params, prompt, outputs)
    return sampler.sample(logits.clone().unsqueeze(0), [0])[0]


def support(params: SamplingParams, logits: torch.Tensor, draws: int = 400) -> set[int]:
    sampler = make()
    admit(sampler, 0, params)
    return {sampler.sample(logits.clone().unsqueeze(0), [0])[0].token_id for _ in range(draws)}


LOGITS = torch.log(torch.tensor([0.5, 0.25, 0.125, 0.0625] + [0.0625 / 28] * 28))


def test_greedy_takes_the_most_probable() -> None:
    assert one(SamplingParams(temperature=0), LOGITS).token_id == 0


def test_draws_follow_the_distribution() -> None:
    sampler = make()
    for slot in range(8):
        admit(sampler, slot, SamplingParams(temperature=1))
    counts = torch.zeros(VOCAB)
    for _ in range(1000):
        for token in sampler.sample(LOGITS.repeat(8, 1), list(range(8))):
            counts[token.token_id] += 1
    share = counts / counts.sum()
    assert torch.allclose(share[:4], torch.tensor([0.5, 0.25, 0.125, 0.0625]), atol=0.025)


def test_temperature_sharpens() -> None:
    assert support(SamplingParams(temperature=0.05), LOGITS) == {0}


@pytest.mark.parametrize(("top_k", "expected"), [(1, {0}), (3, {0, 1, 2})])
def test_top_k_keeps_k(top_k: int, expected: set[int]) -> None:
    assert support(SamplingParams(top_k=top_k), LOGITS) == expected


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.4, {0}), (0.5, {0}), (0.6, {0, 1}), (0.8, {0, 1, 2})]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p: float, expected: set[int]) -> None:
    assert support(SamplingParams(top_p=top_p), LOGITS) == expected


@pytest.mark.parametrize(("min_p", "expected"), [(0.6, {0}), (0.4, {0, 1}), (0.2, {0, 1, 2})])
def test_min_p_is_relative_to_the_most_probable(min_p: float, expected: set[int]) -> None:
    assert support(SamplingParams(min_p=min_p), LOGITS) == expected


def test_top_p_is_exact_where_the_mass_is_spread_over_a_large_vocabulary() -> None:
    vocab = 5000
    sampler = Sampler(vocab, 1, [0], torch.device("cpu"), 0, ReferenceBackend().draw)
    admit(sampler, 0, SamplingParams(top_p=0.5))
    logits = torch.linspace(1e-3, 0, vocab)
    drawn = {sampler.sample(logits.clone().unsqueeze(0), [0])[0].token_id for _ in range(300)}
    assert max(drawn) < 2500
    assert max(drawn) > 1024


def test_one_row_s_parameters_do_not_touch_another_s() -> None:
    sampler = make()
    admit(sampler, 0, SamplingParams(temperature=0))
    admit(sampler, 1, SamplingParams(top_k=1, temperature=2))
    admit(sampler, 2, SamplingParams(temperature=0, logit_bias={5: 100}))
    admit(sampler, 3, SamplingParams(temperature=1))
    for _ in range(50):
        tokens = [t.token_id for t in sampler.sample(LOGITS.repeat(4, 1), [0, 1, 2, 3])]
        assert tokens[:3] == [0, 0, 5]


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits() -> None:
    logits = torch.full((VOCAB,), -9.0)
    logits[1], logits[2], logits[3] = 2.0, 1.5, -0.5
    assert one(SamplingParams(temperature=0), logits).token_id == 1
    params = SamplingParams(temperature=0, repetition_penalty=2)
    assert one(params, logits, prompt=(1,)).token_id == 2
    assert one(params, logits, prompt=(1,), outputs=(2,)).token_id == 1


def test_presence_and_frequency_count_the_answer_only() -> None:
    logits = torch.zeros(VOCAB)
    logits[1], logits[2] = 1.0, 0.5
    presence = SamplingParams(temperature=0, presence_penalty=1)
    assert one(presence, logits, prompt=(1, 1)).token_id == 1
    assert one(presence, logits, outputs=(1,)).token_id == 2
    frequency = SamplingParams(temperature=0, frequency_penalty=0.3)
    assert one(frequency, logits, outputs=(1,)).token_id == 1
    assert one(frequency, logits, outputs=(1, 1)).token_id == 2


def test_penalties_follow_tokens_as_they_are_chosen() -> None:
    sampler = make()
    admit(sampler, 0, SamplingParams(temperature=0, presence_penalty=2))
    logits = torch.zeros(1, VOCAB)
    logits[0, 1], logits[0, 2] = 1.0, 0.5
    assert [sampler.sample(logits.clone(), [0])[0].token_id for _ in range(2)] == [1, 2]


def test_min_tokens_bans_end_and_stop_tokens_until_reached() -> None:
    logits = torch.zeros(VOCAB)
    logits[END], logits[7], logits[3] = 3.0, 2.0, 1.0
    sampler = make()
    admit(sampler, 0, SamplingParams(temperature=0, min_tokens=2, stop_token_ids=(7,)))
    chosen = [sampler.sample(logits.clone().unsqueeze(0), [0])[0].token_id for _ in range(3)]
    assert chosen == [3, 3, END]


def test_logprobs_are_of_the_raw_distribution_best_first() -> None:
    params = SamplingParams(temperature=0, logprobs=2, logit_bias={2: 100})
    token = one(params, LOGITS)
    expected = torch.log_softmax(LOGITS, dim=-1)
    assert token.token_id == 2
    assert token.logprob == pytest.approx(expected[2].item(), abs=1e-5)
    assert [i for i, _ in token.top] == [0, 1]
    assert token.top[0][1] == pytest.approx(expected[0].item(), abs=1e-5)


def test_each_row_reports_as_many_logprobs_as_it_asked_for() -> None:
    sampler = make()
    admit(sampler, 0, SamplingParams(logprobs=None))
    admit(sampler, 1, SamplingParams(logprobs=0))
    admit(sampler, 2, SamplingParams(logprobs=3))
    tokens = sampler.sample(LOGITS.repeat(3, 1), [0, 1, 2])
    assert tokens[0].logprob is None
    assert tokens[1].logprob is not None
    assert [len(t.top) for t in tokens] == [0, 0, 3]


def test_equal_probabilities_are_cut_by_rank() -> None:
    level = torch.full((VOCAB,), -9.0)
    level[:4] = 1.0
    assert len(support(SamplingParams(top_k=2), level)) == 2
    assert len(support(SamplingParams(top_p=0.2), level)) == 1


def test_top_k_minus_one_keeps_all() -> None:
    assert SamplingParams(top_k=-1) == SamplingParams(top_k=0)


@pytest.mark.parametrize("temperature", [1e-6, 1e-37, 1e-46])
def test_the_coldest_temperatures_are_greedy(temperature: float) -> None:
    assert one(SamplingParams(temperature=temperature), LOGITS.flip(0)).token_id == VOCAB - 1


def test_a_token_of_no_probability_is_never_drawn() -> None:
    logits = torch.full((VOCAB,), -torch.inf)
    logits[[3, 9]] = 0.0
    assert support(SamplingParams(), logits) == {3, 9}


def test_filters_of_every_kind_share_a_step() -> None:
    vocab = 5000
    sampler = Sampler(vocab, 4, [0], torch.device("cpu"), 0, ReferenceBackend().draw)
    kinds = [
        SamplingParams(),
        SamplingParams(top_k=2),
        SamplingParams(top_p=0.9),
        SamplingParams(top_k=1000, top_p=0.5),
    ]
    for slot, params in enumerate(kinds):
        admit(sampler, slot, params)
    flat = torch.linspace(1e-3, 0, vocab).repeat(4, 1)
    drawn = [[t.token_id for t in sampler.sample(flat.clone(), range(4))] for _ in range(200)]
    free, two, nucleus, both = (set(column) for column in zip(*drawn, strict=True))
    assert max(free) > 4500
    assert two == {0, 1}
    assert 4000 < max(nucleus) < 4500
    assert 300 < max(both) < 500


@given(seed=st.integers(0, 2**64 - 1), company=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_a_seeded_request_draws_the_same_in_any_company_and_after_a_preemption(
    seed: int, company: int
) -> None:
    params = SamplingParams(seed=seed)
    alone = make(1)
    admit(alone, 0, params)
    expected = [alone.sample(LOGITS.clone().unsqueeze(0), [0])[0].token_id for _ in range(6)]
    other = make(2)
    for slot in range(company):
        admit(other, slot, SamplingParams())
    slots = list(range(company + 1))
    admit(other, company, params)
    drawn: list[int] = []
    for step in range(6):
        if step == 3:
            admit(other, company, params, outputs=tuple(drawn))
        drawn.append(other.sample(LOGITS.repeat(company + 1, 1), slots)[-1].token_id)
    assert drawn == expected


def test_answers_of_one_seeded_request_differ_from_each_other() -> None:
    sampler = make()
    params = SamplingParams(seed=1, n=8)
    for slot in range(8):
        admit(sampler, slot, params, index=slot)
    flat = torch.zeros(8, VOCAB)
    assert len({t.token_id for t in sampler.sample(flat, list(range(8)))}) > 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("top_p", 0.0),
        ("top_p", 1.5),
        ("top_k", -2),
        ("top_k", 1.5),
        ("max_tokens", 2.5),
        ("n", True),
        ("stop_token_ids", ("5",)),
        ("logit_bias", {"5": 1.0}),
        ("min_p", 2.0),
        ("n", 0),
        ("logprobs", 21),
        ("max_tokens", -1),
        ("presence_penalty", 3.0),
        ("repetition_penalty", 0.0),
        ("logit_bias", {1: 200.0}),
        ("stop", ("",)),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SamplingParams(**{name: value})  # type: ignore[arg-type]
    assert caught.value.param == name
