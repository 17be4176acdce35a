"""A made-up device that keeps steps in flight, and what its made-up model gives without one.

The model has two layers, as far as the cache is concerned. A position's first key is its token; its
second one mixes the first keys of all positions up to it; the next token mixes all second keys.
All are read back through the block tables. So a token is wrong as soon as any block holds another
prefix than it is taken for, was reused too early, or is in the wrong place.
"""

from array import array
from collections import Counter, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

import numpy as np
import tokenizers
import torch

from engine.config import EngineConfig, ModelConfig, RopeConfig
from engine.core import EngineCore, LoadedModel
from engine.executors.choose import Choice
from engine.executors.placement import Placement
from engine.executors.runner import Sampled, SampledTokens
from engine.kernels.reference.backend import ReferenceBackend
from engine.params import SamplingParams
from engine.requests import FinishReason, Request
from engine.scheduler.step import UNKNOWN_TOKEN, SampledToken, Step, Work
from engine.tokenizer import Tokenizer

VOCAB = 7
END = 0
CONTEXT = 40
BLOCK = 4
Place = tuple[int, int]  # a block, and an offset in it


def second_keys(tokens: Iterable[int]) -> list[int]:
    """Each position's second key, of the first keys up to it."""
    keys, key = [], 0
    for position, token in enumerate(tokens):
        key = crc32(array("i", (position, token)).tobytes(), key)
        keys.append(key)
    return keys


def next_token(keys: Sequence[int], index: int) -> int:
    """The token after these second keys, in the output of this index."""
    return crc32(array("Q", (index, *keys)).tobytes()) % VOCAB


def max_total(params: SamplingParams, prompt: Sequence[int]) -> int:
    """Most tokens of prompt and output."""
    return min(len(prompt) + (params.max_tokens or CONTEXT), CONTEXT)


def expected(request: Request, index: int) -> tuple[tuple[int, ...], FinishReason]:
    """An output without cache, batch or steps."""
    params, tokens = request.params, list(request.prompt)
    ends = {*params.stop_token_ids} | (set() if params.ignore_eos else {END})
    while True:
        tokens.append(next_token(second_keys(tokens), index))
        output = tuple(tokens[len(request.prompt) :])
        if tokens[-1] in ends and len(output) >= params.min_tokens:
            return output, "stop"
        if len(tokens) == max_total(params, request.prompt):
            return output, "length"


class Fault(Exception):
    """The device failed, as it was told to."""


@dataclass(eq=False)
class Launched:
    """A step on its way, with the block tables as they were when it was launched."""

    device: "Device"
    step: Step
    tables: dict[int, tuple[int, ...]]
    sampled: Sampled | None = None

    def collect(self) -> Sampled:
        """See `Pending.collect`."""
        return self.device.collect(self)


class Device:
    """Runs steps in the order of their launch, and as late as it can: when they are collected.

    Args:
        placement: see `StepRunner`.
        max_in_flight: see `StepRunner`.
        lookahead: tokens that it samples for a sequence in one step.
        by_slot: hand them over by slot; otherwise as an array, which holds one for each sequence.
        faults: the calls of `launch` and `collect` that fail, counted from 0.
    """

    def __init__(
        self,
        placement: Placement,
        max_in_flight: int,
        *,
        lookahead: int = 1,
        by_slot: bool = True,
        faults: Collection[int] = (),
    ) -> None:
        self.placement = placement
        self.max_in_flight = max_in_flight
        self.most_in_flight = 0
        self.unknown_tokens = 0
        self._lookahead = lookahead
        self._by_slot = by_slot
        self._faults = faults
        self._calls = 0
        # On the host: what was launched and not collected.
        self._in_flight: deque[Launched] = deque()
        self._tables: dict[int, tuple[int, ...]] = {}
        self._limits: dict[int, int] = {}
        # On the device: what is still to run, and what the steps so far have left.
        self._stream: deque[Launched] = deque()
        self._first: dict[Place, tuple[int, int]] = {}
        self._second: dict[Place, int] = {}
        self._last_token: dict[int, int] = {}
        self._index: dict[int, int] = {}

    def on_layer(self, call: object) -> None:
        """See `StepRunner.on_layer`."""

    # -- the host's side -----------------------------------------------------------------------

    def launch(self, step: Step) -> Launched:
        """See `StepRunner.launch`."""
        self._check(step)
        for work in step.works:
            if work.admission is not None:
                admission = work.admission
                self._tables[work.slot] = ()
                self._limits[work.slot] = max_total(admission.params, admission.prompt)
            self._tables[work.slot] += work.new_blocks
            end = work.start + len(work.token_ids)
            assert end < self._limits[work.slot], "past the sequence's end"
            assert len(self._tables[work.slot]) == -(-end // BLOCK)
        launched = Launched(self, step, {w.slot: self._tables[w.slot] for w in step.works})
        self._stream.append(launched)
        self._in_flight.append(launched)
        self.most_in_flight = max(self.most_in_flight, len(self._in_flight))
        self._maybe_fail()
        return launched

    def collect(self, launched: Launched) -> Sampled:
        """Run what was launched up to here."""
        self._maybe_fail()
        assert self._in_flight.popleft() is launched, "collected out of order"
        while launched.sampled is None:
            self._run(self._stream.popleft())
        return launched.sampled

    def _maybe_fail(self) -> None:
        """Whoever sees the fault gives up all steps, which the device runs nevertheless."""
        self._calls += 1
        if self._calls - 1 in self._faults:
            self._in_flight.clear()
            raise Fault

    def _check(self, step: Step) -> None:
        """What a step must keep to, beside those that are in flight."""
        assert step.works, "an empty step"
        assert len(self._in_flight) <= self.max_in_flight
        assert len({work.slot for work in step.works}) == len(step.works)
        lengths = [len(work.token_ids) > 1 for work in step.works]
        assert all(first <= second for first, second in pairwise(lengths)), "decodes come first"
        used = Counter(b for each in self._in_flight for t in each.tables.values() for b in t)
        pending = {w.slot for each in self._in_flight for w in each.step.works if w.sample}
        slots = {slot for each in self._in_flight for slot in each.tables}
        for work in step.works:
            fresh = work.new_blocks
            if work.admission is not None:
                assert work.slot not in slots, "a slot that a step in flight still uses"
                fresh = fresh[work.start // BLOCK :]
            assert not any(used[block] for block in fresh), "a block that is still in use"
            unknown = work.token_ids.count(UNKNOWN_TOKEN)
            self.unknown_tokens += unknown
            assert unknown <= (work.slot in pending)
            assert UNKNOWN_TOKEN not in work.token_ids[:-1]

    # -- the device's side ---------------------------------------------------------------------

    def _run(self, launched: Launched) -> None:
        works, tables = launched.step.works, launched.tables
        for work in works:
            if work.admission is not None:
                self._index[work.slot] = work.admission.index
            for position, token in enumerate(work.token_ids, work.start):
                known = self._last_token[work.slot] if token == UNKNOWN_TOKEN else token
                self._first[_place(tables[work.slot], position)] = position, known
        read: dict[int, list[int]] = {}
        for work in works:
            read[work.slot] = self._tokens(work, tables[work.slot])
            keys = second_keys(read[work.slot])
            for position in range(work.start, len(keys)):
                self._second[_place(tables[work.slot], position)] = keys[position]
        sampled = {
            work.slot: self._sample(work, tables[work.slot], read[work.slot])
            for work in works
            if work.sample
        }
        launched.sampled = sampled if self._by_slot else _as_array(sampled)

    def _tokens(self, work: Work, table: tuple[int, ...]) -> list[int]:
        """The first keys that a work sees; -1 where they are another position's."""
        found = []
        for position in range(work.start + len(work.token_ids)):
            there, token = self._first.get(_place(table, position), (-1, -1))
            found.append(token if there == position else -1)
        return found

    def _sample(
        self, work: Work, table: tuple[int, ...], tokens: list[int]
    ) -> tuple[SampledToken, ...]:
        end = work.start + len(work.token_ids)
        keys = [self._second.get(_place(table, position), 0) for position in range(end)]
        index, chosen = self._index[work.slot], []
        for _ in range(self._lookahead):
            chosen.append(next_token(keys, index))
            keys = second_keys([*tokens, *chosen])
        self._last_token[work.slot] = chosen[-1]
        return tuple(map(SampledToken, chosen))


def _as_array(sampled: dict[int, tuple[SampledToken, ...]]) -> SampledTokens:
    return SampledTokens(np.array([token.token_id for (token,) in sampled.values()], np.int64))


def _place(table: tuple[int, ...], position: int) -> Place:
    return table[position // BLOCK], position % BLOCK


def placement(num_blocks: int, max_num_seqs: int, max_batch_tokens: int) -> Placement:
    """A device of this size."""
    choice = Choice(
        torch.device("cpu"), torch.float32, ReferenceBackend(), "none", torch.float32, 1
    )
    return Placement(choice, max_num_seqs, max_batch_tokens, CONTEXT, num_blocks, num_blocks, ())


def make_core(config: EngineConfig, device: Device) -> EngineCore:
    """An engine whose model is the made-up one on this device."""
    model = ModelConfig(
        family="llama",
        vocab_size=VOCAB,
        hidden_size=1,
        intermediate_size=1,
        num_layers=2,
        num_heads=1,
        num_kv_heads=1,
        head_dim=1,
        max_position=CONTEXT,
        rms_norm_eps=1e-5,
        rope=RopeConfig(),
        tie_embeddings=True,
        eos_token_ids=(END,),
    )
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(VOCAB)}, unk_token="w0")
    tokenizer = Tokenizer(tokenizers.Tokenizer(words), special_tokens={}, chat_templates={})
    return EngineCore(config, LoadedModel("made up", model, tokenizer, device))
