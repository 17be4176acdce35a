"""Sampling on the device: what its passes read, what they write, and the protocol they follow."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

ALTERNATIVES = 20
"""Most tokens a row reports beside the one that was drawn."""
CHUNK = 4096
"""Logits of a row that a program reads."""
BINS = 256
"""Classes of a row's tokens by their weight, to find a bound below its cut."""
CANDIDATES = 2048
"""Tokens above a row's bound that are kept; where there are more, the row is read again."""
IN_PROMPT = 1 << 30
"""Bit of a token's count that says that the prompt has it; the lower bits count the output's."""
REPORT_VALUES, REPORT_IDS = 1, 1 + ALTERNATIVES
"""Where a row of a report has the alternatives; the drawn token's log-probability is before."""
REPORT_WIDTH = 1 + 2 * ALTERNATIVES


class Column(IntEnum):
    """Columns of a slot's row in `SamplerTensors.table`; those marked f hold float32 bits.

    Attributes:
        INVERSE_TEMPERATURE: f; 0 takes the argmax.
        TOP_P, MIN_P: f; 1 and 0 keep all.
        TOP_K: 0 keeps all.
        SEED_LOW, SEED_HIGH: halves of 64 bits.
        REPETITION, PRESENCE, FREQUENCY: f; penalties.
        COUNT_ROW: row of `SamplerTensors.counts`; -1 where there are no penalties.
        LIST_ROW: row of `SamplerTensors.lists`; -1 where nothing is biased or banned.
        BIASED, BANNED: how many tokens of the list's row are biased, and banned behind those.
        FREE_FROM: first position at which no token is banned.
        FILTERED: whether top-k, top-p or min-p leave anything out.
        REPORTED: alternatives to report; -1 reports nothing.
    """

    INVERSE_TEMPERATURE = 0
    TOP_P = 1
    MIN_P = 2
    TOP_K = 3
    SEED_LOW = 4
    SEED_HIGH = 5
    REPETITION = 6
    PRESENCE = 7
    FREQUENCY = 8
    COUNT_ROW = 9
    LIST_ROW = 10
    BIASED = 11
    BANNED = 12
    FREE_FROM = 13
    FILTERED = 14
    REPORTED = 15


@dataclass(slots=True)
class SamplerTensors:
    """What sampling keeps on the device from step to step. The pools grow; the rest stays.

    Attributes:
        table: int32 [slots, 16]; see `Column`. 64 bytes a slot.
        last_tokens: int32 [slots]; the token that each slot sampled last.
        counts: int32 [pool, vocab]; how often outputs hold each token, and `IN_PROMPT`. 4 · vocab
            bytes a row (513,024 of a vocabulary of 128,256), one for each slot with penalties.
        lists: int32 [pool, 2 · width]; token ids, biased ones first and banned ones behind them,
            and from ``width`` on the float32 bits of their biases. One row for each slot that
            has some.
    """

    table: Tensor
    last_tokens: Tensor
    counts: Tensor
    lists: Tensor


@dataclass(frozen=True, slots=True)
class SampledRows:
    """The rows of logits that tokens are drawn from.

    Attributes:
        logits: [N, vocab], of the model's dtype or float32; dense in its last dimension. They are
            not changed.
        slots: int32 [N]; -1 for padding, for which nothing is written.
        positions: int32 [N]; of the tokens that are drawn, each in its sequence.
        tokens: int32 [N]; written.
    """

    logits: Tensor
    slots: Tensor
    positions: Tensor
    tokens: Tensor


class Workspace:
    """Room for what the launches of one draw hand on to each other, for up to ``rows`` rows.

    With chunks = ceil(vocab / 4,096), a row takes 172 · chunks + 17,424 bytes: 22,928 for a
    vocabulary of 128,256.

    Attributes:
        rows, chunks: of this room.
        best, where: float32 and int32 [rows, chunks]; a chunk's maximum, and its token.
        sums: float32 [rows, chunks]; of exponentials, relative to the chunk's maximum.
        histogram: int32 [rows, BINS]; tokens of each class.
        bounds: float32 [rows, 3]; a row's maximum, its sum of exponentials, last class above its
            cut.
        found: int32 [rows]; tokens of these classes.
        candidates, candidate_ids: float32 and int32 [rows, CANDIDATES]; their adjusted logits and
            their ids.
        top_keys, top_ids: int32 [rows, chunks, ALTERNATIVES]; a chunk's first tokens, as ordered
            integers, and their ids.
    """

    def __init__(self, rows: int, vocab_size: int, device: torch.device) -> None:
        def room(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.empty(rows, *shape, dtype=dtype, device=device)

        self.rows, self.chunks = rows, -(-vocab_size // CHUNK)
        self.best = room(torch.float32, self.chunks)
        self.where = room(torch.int32, self.chunks)
        self.sums = room(torch.float32, self.chunks)
        self.histogram = room(torch.int32, BINS)
        self.bounds = room(torch.float32, 3)
        self.found = room(torch.int32)
        self.candidates = room(torch.float32, CANDIDATES)
        self.candidate_ids = room(torch.int32, CANDIDATES)
        self.top_keys = room(torch.int32, self.chunks, ALTERNATIVES)
        self.top_ids = room(torch.int32, self.chunks, ALTERNATIVES)


class SamplingKernels(Protocol):
    """Launches that draw tokens. They allocate nothing.

    A token is drawn by Gumbel's trick (Gumbel 1954): the argmax of logits / temperature + noise.
    The noise is a hash of the slot's seed, the position and the token id (`SplitMix64` of Steele et
    al. 2014, and a finalizer of 32 bits with two multiplications), so that equal seeds draw equal
    tokens in any batch. NaN counts as -infinity. Among equal logits the lower token id comes first.
    """

    def draw(
        self,
        rows: SampledRows,
        state: SamplerTensors,
        room: Workspace,
        *,
        adjusted: bool,
        filtered: bool,
    ) -> None:
        """Draw a token a row; write it, note it as the slot's last one, and count it.

        Args:
            rows: see there.
            state: its table is read; last tokens and counts are written.
            room: for N rows or more.
            adjusted: whether any slot has penalties, biases or bans; where false, they are ignored.
            filtered: whether any slot has top-k, top-p or min-p; where false, they are ignored.
        """
        ...

    def report(
        self, rows: SampledRows, state: SamplerTensors, room: Workspace, report: Tensor
    ) -> None:
        """Write the log-probabilities of drawn tokens and of the most probable ones.

        They are of the raw logits: neither adjusted nor divided by a temperature.

        Args:
            rows: with the drawn tokens.
            state: its table says which slots want how much.
            room: for N rows or more.
            report: int32 [N or more, REPORT_WIDTH]; written where a slot wants it: float32 bits of
                the drawn token's log-probability, those of the alternatives, best first, and the
                alternatives' ids.
        """
        ...
