"""What sampling keeps on the device, as the host sees it: rows are changed here and sent there.

What is sent lies in pinned memory, twice: a step writes the set of its parity while the device may
still read the other one.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.kernels.fused.device import Device
from engine.kernels.fused.sampling import IN_PROMPT, SamplerTensors

_FIRST_ROWS, _FIRST_WIDTH = 4, 16  # rows of the pools, tokens of a list


class Mirror:
    """Rows of int32 words on the host, and their copy on the device.

    Attributes:
        words, reals: [rows, width] on the host, the same memory as int32 and as float32.
        tensor: int32 [rows, width] on the device.
    """

    def __init__(self, device: Device, rows: int, width: int, fill: int) -> None:
        self._device = device
        self.words = np.full((rows, width), fill, np.int32)
        self.reals = self.words.view(np.float32)
        self.tensor = torch.empty(rows, width, dtype=torch.int32, device=device.torch_device)
        self._pinned = [device.pinned((rows, width), torch.int32) for _ in range(2)]
        self._first, self._end = 0, rows  # what was changed lies in between

    def changed(self, row: int) -> None:
        """Send a row with the next upload."""
        self._first, self._end = min(self._first, row), max(self._end, row + 1)

    def upload(self, parity: int) -> None:
        """Submit the copy of what was changed."""
        if self._first >= self._end:
            return
        rows = slice(self._first, self._end)
        pinned = self._pinned[parity][rows]
        pinned.copy_(torch.from_numpy(self.words[rows]))
        self._device.copy(pinned, self.tensor[rows])
        self._first, self._end = len(self.words), 0


class RowPool:
    """Rows that some slots have; there are twice as many where they do not suffice.

    Attributes:
        capacity: rows there are; none before one is taken.
    """

    def __init__(self) -> None:
        self.capacity = 0
        self._free: list[int] = []
        self._rows: dict[int, int] = {}

    def take(self, slot: int) -> int:
        """The slot's row; a free one if it has none."""
        if slot not in self._rows:
            if not self._free:
                capacity = max(2 * self.capacity, _FIRST_ROWS)
                self._free = list(range(self.capacity, capacity))[::-1]
                self.capacity = capacity
            self._rows[slot] = self._free.pop()
        return self._rows[slot]

    def give_back(self, slot: int) -> None:
        """Let go of the slot's row, if it has one."""
        if slot in self._rows:
            self._free.append(self._rows.pop(slot))


class TokenLists:
    """Tokens with a bias, and tokens that are banned; see `SamplerTensors.lists`."""

    def __init__(self, device: Device, state: SamplerTensors) -> None:
        self._device = device
        self._state = state
        self._pool = RowPool()
        self._mirror = Mirror(device, 0, 2 * _FIRST_WIDTH, 0)
        self._moved = True

    def put(self, slot: int, biases: dict[int, float], banned: Sequence[int]) -> int:
        """Give the slot a row, or none (-1) where both are empty."""
        if not biases and not banned:
            self._pool.give_back(slot)
            return -1
        row = self._pool.take(slot)
        self._make_room(len(biases) + len(banned))
        width = self._mirror.words.shape[1] // 2
        self._mirror.words[row, : len(biases)] = list(biases)
        self._mirror.words[row, len(biases) : len(biases) + len(banned)] = banned
        self._mirror.reals[row, width : width + len(biases)] = list(biases.values())
        self._mirror.changed(row)
        return row

    def _make_room(self, length: int) -> None:
        before = self._mirror
        rows, width = before.words.shape[0], before.words.shape[1] // 2
        wider = width
        while wider < length:
            wider *= 2
        if wider == width and self._pool.capacity == rows:
            return
        self._mirror = Mirror(self._device, self._pool.capacity, 2 * wider, 0)
        self._mirror.words[:rows, :width] = before.words[:, :width]
        self._mirror.words[:rows, wider : wider + width] = before.words[:, width:]
        self._moved = True

    def upload(self, parity: int) -> None:
        """Submit what was put."""
        self._mirror.upload(parity)
        if self._moved:
            self._moved = False
            tensor = self._mirror.tensor
            self._device.submit(lambda: setattr(self._state, "lists", tensor))


class TokenCounts:
    """How often tokens were seen; see `SamplerTensors.counts`. The device counts what it draws.

    Room for a sequence's tokens is made when it is put, not in the steps behind.
    """

    def __init__(self, device: Device, state: SamplerTensors) -> None:
        self._device = device
        self._state = state
        self._pool = RowPool()
        self._rows = 0  # that the device has once all is done that was submitted
        self._put: list[tuple[int, Sequence[int], Sequence[int]]] = []
        self._pinned = [device.pinned((0,), torch.int64) for _ in range(2)]

    def put(self, slot: int, prompt: Sequence[int], outputs: Sequence[int]) -> int:
        """Give the slot a row with these tokens."""
        row = self._pool.take(slot)
        self._put.append((row, prompt, outputs))
        return row

    def drop(self, slot: int) -> int:
        """Give the slot none: -1."""
        self._pool.give_back(slot)
        return -1

    def upload(self, parity: int) -> None:
        """Submit what was put."""
        if self._pool.capacity > self._rows:
            self._rows = self._pool.capacity
            self._submit_growth(self._rows)
        if not self._put:
            return
        ids = [token for _, prompt, outputs in self._put for token in (*prompt, *outputs)]
        if len(ids) > len(self._pinned[parity]):
            size = 1 << (len(ids) - 1).bit_length()
            self._pinned[parity] = self._device.pinned((size,), torch.int64)
        pinned = self._pinned[parity][: len(ids)]
        pinned.copy_(torch.tensor(ids, dtype=torch.int64))
        start = 0
        for row, prompt, outputs in self._put:
            middle, end = start + len(prompt), start + len(prompt) + len(outputs)
            self._submit_row(row, pinned[start:middle], pinned[middle:end])
            start = end
        self._put = []

    def _submit_growth(self, rows: int) -> None:
        def grow() -> None:
            before = self._state.counts
            self._state.counts = before.new_zeros(rows, before.shape[1])
            self._state.counts[: len(before)] = before

        self._device.submit(grow)

    def _submit_row(self, row: int, prompt: Tensor, outputs: Tensor) -> None:
        def fill() -> None:
            counts = self._state.counts[row].zero_()
            seen, drawn = (x.to(counts.device, non_blocking=True) for x in (prompt, outputs))
            counts.index_fill_(0, seen, IN_PROMPT)
            counts.index_add_(0, drawn, torch.ones_like(drawn, dtype=torch.int32))

        self._device.submit(fill)
