"""Sampling on the device against the processors and the plain definitions, on a late device."""

from collections.abc import Sequence

import pytest
import torch

from engine.kernels.fused.sampling import SamplingKernels
from engine.kernels.fused.stand_in import StandIn
from engine.kernels.reference.device_sampling import ReferenceSampling
from engine.params import SamplingParams
from engine.sampling.device_sampler import DeviceSampler
from engine.sampling.processors import make_processors
from engine.scheduler.step import Admission, SampledToken

VOCAB = 64
END = 63
CPU = torch.device("cpu")


class Run:
    """A sampler, and steps of it whose results are looked at one step late."""

    def __init__(
        self, kernels: SamplingKernels | None = None, slots: int = 8, seed: int | None = 0
    ) -> None:
        self.device = StandIn()
        kernels = kernels or ReferenceSampling()
        self.sampler = DeviceSampler(self.device, kernels, VOCAB, slots, [END], seed)
        self._steps = 0

    def admit(
        self,
        slot: int,
        params: SamplingParams,
        prompt: Sequence[int] = (0,),
        outputs: Sequence[int] = (),
        index: int = 0,
    ) -> None:
        self.sampler.admit(slot, Admission(params, index, tuple(prompt), tuple(outputs)))

    def launch(
        self, logits: torch.Tensor, slots: list[int], positions: list[int], padding: int = 0
    ) -> "Launched":
        parity = self._steps % 2
        self._steps += 1
        self.sampler.upload(parity)
        plain = self.sampler.plain(slots)
        count = len(slots) + padding
        tokens = torch.full((count,), -7, dtype=torch.int32)
        on_device = torch.tensor(slots + [-1] * padding, dtype=torch.int32)
        places = torch.tensor(positions + [0] * padding, dtype=torch.int32)
        rows = torch.cat((logits, torch.full((padding, VOCAB), torch.nan)))
        self.device.submit(lambda: self.sampler.draw(rows, on_device, places, tokens, plain, slots))
        return Launched(self, tokens, slots, parity, plain)

    def one(self, logits: torch.Tensor, slots: list[int], positions: list[int]) -> list[int]:
        return [x.token_id for x in self.launch(logits, slots, positions).collect()]


class Launched:
    """A step in flight."""

    def __init__(
        self, run: Run, tokens: torch.Tensor, slots: list[int], parity: int, plain: bool
    ) -> None:
        self._run, self.tokens, self._slots = run, tokens, slots
        self._parity, self.plain = parity, plain
        self._mark = run.device.mark()

    def collect(self) -> list[SampledToken]:
        self._mark.wait()
        tokens = self.tokens.tolist()[: len(self._slots)]
        return self._run.sampler.collect(tokens, self._slots, self._parity)


def test_greedy_rows_are_plain_and_their_tokens_are_noted_by_slot() -> None:
    run, logits = Run(), torch.randn(3, VOCAB)
    for slot in (5, 0, 2):
        run.admit(slot, SamplingParams(temperature=0))
    step = run.launch(logits, [5, 0, 2], [1, 1, 1], padding=2)
    assert step.plain
    assert [x.token_id for x in step.collect()] == logits.argmax(-1).tolist()
    assert step.tokens.tolist()[3:] == [-7, -7]
    last = run.sampler.last_tokens.tolist()
    assert [last[slot] for slot in (5, 0, 2)] == logits.argmax(-1).tolist()
    assert [last[slot] for slot in (1, 3, 4, 6, 7)] == [0] * 5


@pytest.mark.parametrize(
    ("params", "plain"),
    [
        (SamplingParams(), True),
        (SamplingParams(temperature=0, top_k=5, top_p=0.5), True),
        (SamplingParams(top_k=VOCAB), True),
        (SamplingParams(ignore_eos=True, seed=3), True),
        (SamplingParams(top_k=5), False),
        (SamplingParams(top_p=0.9), False),
        (SamplingParams(min_p=0.1), False),
        (SamplingParams(logprobs=0), False),
        (SamplingParams(logit_bias={1: 1.0}), False),
        (SamplingParams(repetition_penalty=1.1), False),
        (SamplingParams(presence_penalty=0.1), False),
        (SamplingParams(frequency_penalty=-0.1), False),
        (SamplingParams(min_tokens=2), False),
    ],
)
def test_a_slot_is_plain_where_its_logits_are_drawn_from_as_they_are(
    params: SamplingParams, plain: bool
) -> None:
    run = Run()
    run.admit(3, params)
    assert run.sampler.plain([3]) == plain
    run.admit(4, SamplingParams(temperature=0))
    assert run.sampler.plain([4])
    assert run.sampler.plain([3, 4]) == plain


PENALTIES = [
    SamplingParams(temperature=0, repetition_penalty=1.7),
    SamplingParams(temperature=0, presence_penalty=1.5, frequency_penalty=0.5),
    SamplingParams(temperature=0, frequency_penalty=-0.3, logit_bias={3: 4.0, 9: -100.0}),
    SamplingParams(temperature=0, min_tokens=4, stop_token_ids=(7, 11)),
    SamplingParams(
        temperature=0,
        min_tokens=2,
        repetition_penalty=0.6,
        presence_penalty=-0.7,
        frequency_penalty=0.4,
        logit_bias={i: 0.1 * i for i in range(20)},
    ),
]


@pytest.mark.parametrize("params", PENALTIES)
def test_greedy_tokens_are_those_of_the_processors_step_by_step(params: SamplingParams) -> None:
    run, prompt = Run(), (5, 7, 7, 20)
    outputs: list[int] = [7, 30]  # of a sequence that was preempted
    run.admit(1, params, prompt, outputs)
    processors = make_processors(Admission(params, 0, prompt, tuple(outputs)), [END], CPU)
    scale = torch.ones(VOCAB)
    scale[[END, 7, 11, 30]] += 1.5  # probable enough to be banned and penalized
    for _ in range(8):
        logits = torch.randn(VOCAB) + scale
        changed = logits.clone()
        for processor in processors:
            processor.apply(changed)
        expected = int(changed.argmax())
        found = run.one(logits[None], [1], [len(prompt) + len(outputs)])
        assert found == [expected]
        outputs.append(expected)
        for processor in processors:
            processor.remember(expected)
        processors = [processor for processor in processors if not processor.done]


def test_bans_end_after_min_tokens_and_the_slot_is_plain_again() -> None:
    run = Run()
    run.admit(0, SamplingParams(temperature=0, min_tokens=2))
    logits = torch.zeros(1, VOCAB)
    logits[0, END], logits[0, 4] = 9, 5
    first = run.launch(logits, [0], [1])
    second = run.launch(logits, [0], [2])  # before the first is collected
    assert [step.collect()[0].token_id for step in (first, second)] == [4, 4]
    third = run.launch(logits, [0], [3])
    assert third.plain
    assert third.collect()[0].token_id == END


def test_tokens_of_steps_in_flight_are_counted() -> None:
    run = Run()
    run.admit(0, SamplingParams(temperature=0, frequency_penalty=2))
    logits = torch.zeros(1, VOCAB)
    logits[0, 1], logits[0, 2] = 5, 4
    steps = [run.launch(logits, [0], [1]), run.launch(logits, [0], [2])]
    tokens = []
    for position in (3, 4):
        tokens += steps.pop(0).collect()
        steps.append(run.launch(logits, [0], [position]))
    tokens += [x for step in steps for x in step.collect()]
    assert [x.token_id for x in tokens] == [1, 2, 1, 2]


def test_pools_grow_and_keep_what_they_hold() -> None:
    run = Run(slots=12)
    logits = torch.zeros(1, VOCAB)
    logits[0, 1], logits[0, 2] = 5, 4
    for slot in range(12):
        biases = {40 + i: 0.001 for i in range(20)} if slot == 6 else {50: 4.5 + slot}
        params = SamplingParams(temperature=0, frequency_penalty=2, logit_bias=biases)
        run.admit(slot, params, outputs=(1,) if slot % 2 else ())
        assert run.one(logits, [slot], [1]) == [50 if slot not in (0, 6) else 1], (
            "4.5 is less than 5, the penalty has no place before the first token"
        )
    # Each has counted its own tokens: 50 once, but for slots 0 and 6.
    for slot in (1, 3, 11):
        assert run.one(logits, [slot], [2]) == [50 if 2.5 + slot > 4 else 2]
    assert run.one(logits, [0], [2]) == [50]
    assert run.one(logits, [6], [2]) == [2]


def test_a_new_sequence_in_a_slot_has_nothing_of_the_one_before() -> None:
    run, logits = Run(), torch.zeros(1, VOCAB)
    logits[0, 1], logits[0, 2] = 5, 4
    counted = SamplingParams(temperature=0, frequency_penalty=2, logit_bias={3: 9.0})
    run.admit(0, counted)
    assert run.one(logits, [0], [1]) == [3]
    run.admit(0, SamplingParams(temperature=0, frequency_penalty=2))
    assert run.one(logits, [0], [1]) == [1]
    run.admit(0, SamplingParams(temperature=0))
    assert run.sampler.plain([0])
    assert run.one(logits, [0], [1]) == [1]


def test_a_seed_gives_the_same_draw_in_any_slot_and_batch() -> None:
    logits = torch.randn(1, VOCAB)
    seeded = SamplingParams(seed=2**63 + 5)
    alone, crowd = Run(), Run(seed=9)
    alone.admit(0, seeded, index=2)
    for slot in range(8):
        crowd.admit(slot, seeded if slot == 6 else SamplingParams(top_k=9), index=2)
    expected = [alone.one(logits, [0], [n])[0] for n in range(12)]
    order = [3, 6, 1, 0]
    found = [
        crowd.launch(logits.repeat(4, 1), order, [n] * 4, padding=n % 3).collect()[1].token_id
        for n in range(12)
    ]
    assert found == expected
    assert len(set(expected)) > 3


def test_seed_index_and_engine_s_seed_all_count() -> None:
    logits = torch.randn(1, VOCAB)

    def drawn(params: SamplingParams, index: int = 0, seed: int = 0) -> list[int]:
        run = Run(seed=seed)
        run.admit(0, params, index=index)
        return [run.one(logits, [0], [n])[0] for n in range(16)]

    base = drawn(SamplingParams(seed=1))
    assert drawn(SamplingParams(seed=1), seed=5) == base
    assert drawn(SamplingParams(seed=2)) != base
    assert drawn(SamplingParams(seed=1), index=1) != base
    assert drawn(SamplingParams()) == drawn(SamplingParams())
    assert drawn(SamplingParams(), seed=5) != drawn(SamplingParams())


def test_what_is_sent_is_not_overwritten_by_the_step_behind() -> None:
    run, logits = Run(), torch.zeros(1, VOCAB)
    logits[0, 1] = 1
    run.admit(0, SamplingParams(temperature=0, logit_bias={9: 7.0}, presence_penalty=0.1), (3,))
    first = run.launch(logits, [0], [1])
    run.admit(1, SamplingParams(temperature=0, logit_bias={5: 7.0}, presence_penalty=2), (4,))
    run.admit(2, SamplingParams(temperature=0))
    second = run.launch(logits.repeat(2, 1), [1, 2], [1, 1])
    assert [x.token_id for x in first.collect()] == [9]
    assert [x.token_id for x in second.collect()] == [5, 1]


def test_log_probabilities_are_of_the_raw_logits() -> None:
    run, logits = Run(), torch.randn(4, VOCAB)
    biased = {int(logits[0].argmin()): 50.0}
    run.admit(0, SamplingParams(temperature=0, logprobs=3, logit_bias=biased))
    run.admit(1, SamplingParams(temperature=0.5, logprobs=0, seed=1))
    run.admit(2, SamplingParams(temperature=0))
    run.admit(3, SamplingParams(temperature=0, logprobs=20))
    steps = [run.launch(logits, [3, 0, 2, 1], [1] * 4), run.launch(-logits, [3, 0, 2, 1], [2] * 4)]
    for step, rows in zip(steps, (logits, -logits), strict=True):
        sampled = step.collect()
        raw = torch.log_softmax(rows.double(), -1)
        for row, wanted in ((0, 20), (1, 3), (3, 0)):
            values, ids = raw[row].topk(wanted)
            chosen = raw[row, sampled[row].token_id].item()
            assert sampled[row].logprob == pytest.approx(chosen, abs=1e-5)
            assert [i for i, _ in sampled[row].top] == ids.tolist()
            assert [x for _, x in sampled[row].top] == pytest.approx(values.tolist(), abs=1e-5)
        assert sampled[2].logprob is None
    assert sampled[1].token_id == next(iter(biased))


def test_more_rows_than_there_is_room_for_are_refused() -> None:
    run = Run()
    run.admit(0, SamplingParams())
    run.launch(torch.zeros(1, VOCAB), [0], [1], padding=16)
    with pytest.raises(ValueError, match="17 rows of logits are more than 16"):
        run.device.mark().wait()


def test_ids_outside_of_the_vocabulary_are_neither_biased_nor_banned() -> None:
    run, logits = Run(), torch.randn(1, VOCAB)
    run.admit(
        0,
        SamplingParams(
            temperature=0, logit_bias={VOCAB: 9.0}, min_tokens=1, stop_token_ids=(VOCAB + 5,)
        ),
    )
    logits[0, END] = -9
    assert run.one(logits, [0], [1]) == [int(logits.argmax())]
