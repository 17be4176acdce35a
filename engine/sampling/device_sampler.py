"""From logits to tokens on the device, without a wait for it; the order of `Sampler`'s passes."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.fused.device import Device
from engine.kernels.fused.sampling import (
    ALTERNATIVES,
    REPORT_IDS,
    REPORT_VALUES,
    REPORT_WIDTH,
    Column,
    SampledRows,
    SamplerTensors,
    SamplingKernels,
    Workspace,
)
from engine.params import SamplingParams
from engine.sampling.device_state import Mirror, TokenCounts, TokenLists
from engine.sampling.seeds import combined
from engine.scheduler.step import Admission, SampledToken

Slots = Sequence[int] | NDArray[np.int32]

_Index = NDArray[np.intp]
_FEWEST_ROWS = 16  # of logits that there is always room for


class DeviceSampler:
    """Chooses the next token of each sampled row, where the logits are.

    A step calls `admit` for each sequence that takes a slot, then `upload` once, then `draw` in
    what it submits or records, and, after it waited for the step, `collect`. One step may be in
    flight while the next one is launched, and their parities differ.

    A draw depends on the request's seed, the output's index, the position and the logits alone, not
    on the batch. A request without a seed gets one when it is admitted.

    Memory on the device: 68 bytes a slot, and for ``max_num_seqs`` rows, rounded up to a power of
    two, 164 bytes and what `Workspace` takes (23.6 MB for 1,024 rows of a vocabulary of 128,256).
    Where they are asked for, 4 · vocab bytes for each slot with penalties, and 128 or more for each
    with biases or bans, in pools that double where they do not suffice and are not given back.

    Args:
        device: runs the kernels.
        kernels: the launches.
        vocab_size: length of a row of logits.
        max_num_seqs: number of slots.
        end_token_ids: the model's end-of-sequence ids.
        seed: seeds the seeds of requests without one; ``None`` is random.

    Attributes:
        last_tokens: int32 [max_num_seqs] on the device; what each slot sampled last.
    """

    def __init__(
        self,
        device: Device,
        kernels: SamplingKernels,
        vocab_size: int,
        max_num_seqs: int,
        end_token_ids: Sequence[int],
        seed: int | None,
    ) -> None:
        self._device = device
        self._kernels = kernels
        self._vocab_size = vocab_size
        self._end_token_ids = tuple(end_token_ids)
        self._random = np.random.default_rng(seed)
        self._table = Mirror(device, max_num_seqs, len(Column), 0)
        self._table.words[:, [Column.COUNT_ROW, Column.LIST_ROW, Column.REPORTED]] = -1
        self._state = SamplerTensors(
            self._table.tensor,
            self._empty(max_num_seqs),
            self._empty(0, vocab_size),
            self._empty(0, 0),
        )
        self.last_tokens = self._state.last_tokens
        device.submit(self._clear)
        self._counts = TokenCounts(device, self._state)
        self._lists = TokenLists(device, self._state)
        rows = 1 << (max(max_num_seqs, _FEWEST_ROWS) - 1).bit_length()
        self._room = Workspace(rows, vocab_size, device.torch_device)
        self._report = self._empty(rows, REPORT_WIDTH)
        self._reports = [device.pinned((rows, REPORT_WIDTH), torch.int32) for _ in range(2)]
        self._parity = 0  # of the step whose draw the device is at
        # What a slot asks for; `_short` counts tokens to come before it may end.
        self._penalized = np.zeros(max_num_seqs, bool)
        self._short = np.zeros(max_num_seqs, np.int64)
        self._filtered = np.zeros(max_num_seqs, bool)
        self._reported = np.full(max_num_seqs, -1)

    def _clear(self) -> None:
        self.last_tokens.zero_()

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(*shape, dtype=torch.int32, device=self._device.torch_device)

    # -- what the host asks for --------------------------------------------------------------------

    def admit(self, slot: int, admission: Admission) -> None:
        """Prepare a slot for a sequence that begins, or comes back after a preemption."""
        params, outputs = admission.params, admission.output_ids
        words, reals = self._table.words[slot], self._table.reals[slot]
        reals[Column.INVERSE_TEMPERATURE] = 0 if params.greedy else 1 / params.temperature
        reals[Column.TOP_P], reals[Column.MIN_P] = params.top_p, params.min_p
        words[Column.TOP_K] = top_k = params.top_k if params.top_k < self._vocab_size else 0
        narrow = top_k > 0 or params.top_p < 1 or params.min_p > 0
        words[Column.FILTERED] = self._filtered[slot] = narrow and not params.greedy
        words[[Column.SEED_LOW, Column.SEED_HIGH]] = self._seed(params, admission.index)
        reals[Column.REPETITION] = params.repetition_penalty
        reals[Column.PRESENCE] = params.presence_penalty
        reals[Column.FREQUENCY] = params.frequency_penalty
        counted = params.repetition_penalty != 1 or bool(
            params.presence_penalty or params.frequency_penalty
        )
        words[Column.COUNT_ROW] = (
            self._counts.put(slot, admission.prompt, outputs)
            if counted
            else self._counts.drop(slot)
        )
        short = max(params.min_tokens - len(outputs), 0)
        biases = {i: x for i, x in params.logit_bias.items() if 0 <= i < self._vocab_size}
        ends = (*self._end_token_ids, *params.stop_token_ids) if short else ()
        banned = [i for i in ends if 0 <= i < self._vocab_size]
        words[Column.LIST_ROW] = self._lists.put(slot, biases, banned)
        words[Column.BIASED], words[Column.BANNED] = len(biases), len(banned)
        words[Column.FREE_FROM] = min(len(admission.prompt) + params.min_tokens, 2**31 - 1)
        self._penalized[slot], self._short[slot] = counted or bool(biases), short
        wanted = params.sampled_logprobs
        count = -1 if wanted is None else min(wanted, ALTERNATIVES, self._vocab_size)
        words[Column.REPORTED] = count
        self._reported[slot] = words[Column.REPORTED]
        self._table.changed(slot)

    def _seed(self, params: SamplingParams, index: int) -> list[int]:
        """The low and the high half of the sequence's seed, as signed numbers."""
        if params.seed is None:
            seed = self._random.integers(2**64, dtype=np.uint64)
        else:
            seed = combined(params.seed, index)
        halves: list[int] = np.array([seed]).view("<i4").tolist()
        return halves

    def upload(self, parity: int) -> None:
        """Submit what was admitted; to be called once a step, before its draw.

        Args:
            parity: of the step, 0 and 1 by turns: what the device may still read is not written.
        """
        self._table.upload(parity)
        self._counts.upload(parity)
        self._lists.upload(parity)
        self._device.submit(lambda: setattr(self, "_parity", parity))

    def plain(self, slots: Slots) -> bool:
        """Whether none of these slots has filters, penalties, bans or reports.

        Their draw may be recorded: its launches depend on shapes alone.
        """
        index = _index(slots)
        return not (self._adjusted(index) or self._filtered[index].any() or self._report_any(index))

    def _adjusted(self, slots: _Index) -> bool:
        return bool(self._penalized[slots].any() or (self._short[slots] > 0).any())

    def _report_any(self, slots: _Index) -> bool:
        return bool((self._reported[slots] >= 0).any())

    # -- what the device does ----------------------------------------------------------------------

    def draw(
        self,
        logits: Tensor,
        slots: Tensor,
        positions: Tensor,
        tokens: Tensor,
        plain: bool,
        host_slots: Slots,
    ) -> None:
        """Draw a token a row: launches only, inside of what is submitted or recorded.

        Args:
            logits: [N, vocab], of the model's dtype or float32; not changed.
            slots: int32 [N]; -1 for padding, for which nothing is written.
            positions: int32 [N]; of the tokens that are drawn.
            tokens: int32 [N]; written.
            plain: as `plain` said of these slots.
            host_slots: the slots of the first rows; the others are padding.

        Raises:
            ValueError: there are more rows than slots, rounded up to a power of two.
        """
        if len(logits) > self._room.rows:
            raise ValueError(f"{len(logits)} rows of logits are more than {self._room.rows}.")
        rows = SampledRows(logits, slots, positions, tokens)
        index = _index(host_slots)
        adjusted = not plain and self._adjusted(index)
        filtered = not plain and bool(self._filtered[index].any())
        self._kernels.draw(rows, self._state, self._room, adjusted=adjusted, filtered=filtered)
        if not plain and self._report_any(index):
            self._kernels.report(rows, self._state, self._room, self._report)
            count = len(host_slots)
            pinned = self._reports[self._parity][:count]
            pinned.copy_(self._report[:count], non_blocking=True)

    # -- what the host gets ------------------------------------------------------------------------

    def collect(
        self, tokens: NDArray[np.int64], host_slots: Slots, parity: int
    ) -> dict[int, SampledToken]:
        """The rows that are to be reported with log-probabilities, by their places.

        To be called for every step, once it was waited for.

        Args:
            tokens: of the rows of ``host_slots``.
            host_slots: as given to `draw`.
            parity: as given to `upload`.
        """
        index = _index(host_slots)
        self._short[index] -= 1
        found = {}
        for row in np.flatnonzero(self._reported[index] >= 0).tolist():
            wanted = int(self._reported[index[row]])
            words = self._reports[parity][row].numpy()
            values = words.view(np.float32)[: REPORT_VALUES + wanted].tolist()
            ids = words[REPORT_IDS : REPORT_IDS + wanted].tolist()
            top = tuple(zip(ids, values[REPORT_VALUES:], strict=True))
            found[row] = SampledToken(int(tokens[row]), values[0], top)
        return found


def _index(slots: Slots) -> _Index:
    return np.asarray(slots, np.intp)
