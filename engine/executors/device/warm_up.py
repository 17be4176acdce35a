"""Steps of every kind, run before the first request.

So kernels are compiled and loaded, and take the memory that they need, before the cache gets the
rest of it.
"""

from collections.abc import Iterator

from engine.executors.device.runner import DeviceRunner
from engine.params import SamplingParams
from engine.scheduler.step import Admission, Step, Work

TOKEN = 1
SHARED_KEYS = 512
"""Keys that the sequences of a step share: more than segments need."""

GREEDY = SamplingParams(temperature=0)
DRAWN = SamplingParams(temperature=1, seed=0)
FILTERED = SamplingParams(
    temperature=1,
    seed=0,
    top_k=50,
    top_p=0.9,
    min_p=0.01,
    frequency_penalty=0.5,
    logit_bias={TOKEN: 1},
    min_tokens=4,
    logprobs=5,
)


def warm_up(runner: DeviceRunner) -> None:
    """Run them all. What the cache holds is of no use then, and every slot is free."""
    for step in steps(runner):
        runner.launch(step).collect()


def steps(runner: DeviceRunner) -> Iterator[Step]:
    """Prompts of several sizes, decodes of several sizes, shared keys, every way to draw."""
    kinds = Kinds(runner)
    tokens = kinds.most_tokens
    while tokens > kinds.most_sequences // 2:
        yield kinds.prompts(tokens)
        tokens //= 2
    yield kinds.prompts(1)
    yield kinds.long()
    yield kinds.next()
    yield kinds.shared()
    sequences = kinds.most_sequences
    while sequences:
        yield kinds.decodes(sequences, GREEDY)
        sequences //= 2
    yield kinds.decodes(1, DRAWN)
    yield kinds.decodes(1, FILTERED)


class Kinds:
    """Makes steps of sequences that all hold the same token. Blocks are used by many at once.

    Args:
        runner: tells the bounds.
    """

    def __init__(self, runner: DeviceRunner) -> None:
        placement = runner.placement
        self.most_tokens = placement.max_batch_tokens
        self.most_sequences = placement.max_num_seqs
        self._size = runner.block_size
        self._longest = min(placement.max_model_len - 1, placement.num_blocks * self._size - 1)
        self._num_blocks = placement.num_blocks

    def prompts(self, tokens: int) -> Step:
        """Prompts of so many tokens in all, or as many as all sequences may hold."""
        works: list[Work] = []
        while tokens and len(works) < self.most_sequences:
            count = min(tokens, self._longest)
            works.append(self._begun(len(works), 0, count, GREEDY))
            tokens -= count
        return Step(tuple(sorted(works, key=lambda work: len(work.token_ids) > 1)))

    def long(self) -> Step:
        """One sequence with the longest prompt that a step takes."""
        return Step((self._begun(0, 0, min(self._longest - 1, self.most_tokens), GREEDY),))

    def next(self) -> Step:
        """The next token of that one."""
        start = min(self._longest - 1, self.most_tokens)
        blocks = self._blocks(start + 1)[-(-start // self._size) :]
        return Step((Work(0, start, (TOKEN,), blocks, sample=True),))

    def shared(self) -> Step:
        """Decodes that share their first keys."""
        shared = min(SHARED_KEYS, self._longest - 1) // self._size * self._size
        count = min(16, self.most_sequences)
        return Step(tuple(self._begun(slot, shared, 1, GREEDY) for slot in range(count)))

    def decodes(self, sequences: int, params: SamplingParams) -> Step:
        """Decodes with nothing before them."""
        return Step(tuple(self._begun(slot, 0, 1, params) for slot in range(sequences)))

    def _begun(self, slot: int, start: int, count: int, params: SamplingParams) -> Work:
        """The first work of a sequence, whose first ``start`` tokens are taken as computed."""
        end = start + count
        admission = Admission(params, 0, (TOKEN,) * end, ())
        return Work(slot, start, (TOKEN,) * count, self._blocks(end), True, admission)

    def _blocks(self, tokens: int) -> tuple[int, ...]:
        return tuple(range(-(-tokens // self._size)))
