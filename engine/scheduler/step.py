"""What the scheduler asks of the runner: one flattened batch of tokens."""

from dataclasses import dataclass

from engine.params import SamplingParams

UNKNOWN_TOKEN = -1
"""Stands in `Work.token_ids` for a token that an earlier step, still in flight, samples.

It is the token that the step launched last with ``sample`` set for the slot samples there. The
executor puts it in on its device, where that token is. The engine schedules such a step only for a
runner whose ``max_in_flight`` is above 0.
"""


@dataclass(frozen=True, slots=True)
class Admission:
    """What the runner must know of a sequence that takes a slot.

    ``output_ids`` is not empty where a preempted sequence comes back.
    """

    params: SamplingParams
    index: int
    prompt: tuple[int, ...]
    output_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Work:
    """One sequence's share of a step.

    Attributes:
        slot: the sequence's place on the device, below ``max_num_seqs``.
        start: position of the first token.
        token_ids: the tokens whose keys and values are computed; the last one may be
            `UNKNOWN_TOKEN`.
        new_blocks: blocks appended to the slot's block table for them.
        sample: whether the last token's logits give the next token.
        admission: set where the sequence takes the slot in this step.
    """

    slot: int
    start: int
    token_ids: tuple[int, ...]
    new_blocks: tuple[int, ...]
    sample: bool
    admission: Admission | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A batch: works with one token first, longer ones (prefill chunks) after them."""

    works: tuple[Work, ...]

    @property
    def num_tokens(self) -> int:
        """Tokens in the whole batch."""
        return sum(len(work.token_ids) for work in self.works)


@dataclass(frozen=True, slots=True)
class SampledToken:
    """A chosen token; log-probabilities where they were asked for.

    ``top`` is ((token id, log-probability), …), best first.
    """

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()
