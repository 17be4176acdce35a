"""Block tables that a device has as well, brought up to date there by what changed."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.executors.inputs import BlockTables
from engine.kernels.fused.device import Device
from engine.scheduler.step import Step

_ROOM = 4096  # changes that there is room for at first


class DeviceTables(BlockTables):
    """See `BlockTables`.

    Args:
        device: keeps them too.
        max_num_seqs, max_blocks, block_size: see `BlockTables`.

    Attributes:
        on_device: int32 [slots, blocks], at an address that stays.
    """

    def __init__(self, device: Device, max_num_seqs: int, max_blocks: int, block_size: int) -> None:
        super().__init__(max_num_seqs, max_blocks, block_size)
        self.on_device = torch.zeros(
            max_num_seqs, max_blocks, dtype=torch.int32, device=device.torch_device
        )
        self._device = device
        self._places: list[NDArray[np.int64]] = []
        self._blocks: list[NDArray[np.int64]] = []
        self._rooms = [_Room(device, _ROOM) for _ in range(2)]

    def update(self, step: Step) -> None:
        """See `BlockTables.update`."""
        super().update(step)
        width, size, decodes = self.rows.shape[1], self.block_size, step.decodes
        if len(decodes.grown):
            slots, starts = decodes.slots[decodes.grown], decodes.starts[decodes.grown]
            self._note(slots * width + starts // size, decodes.new_blocks)
        for work in step.others:
            if work.new_blocks:
                held = 0 if work.admission is not None else -(-work.start // size)
                first = work.slot * width + held
                self._note(
                    np.arange(first, first + len(work.new_blocks)), np.array(work.new_blocks)
                )

    def _note(self, places: NDArray[np.int64], blocks: NDArray[np.int64]) -> None:
        self._places.append(places)
        self._blocks.append(blocks)

    def send(self, side: int) -> None:
        """Submit what changed since the last call.

        Args:
            side: 0 and 1 alternately; what was sent with the same one before has been done.
        """
        if not self._places:
            return
        places, blocks = np.concatenate(self._places), np.concatenate(self._blocks)
        self._places, self._blocks = [], []
        if len(places) > self._rooms[side].size:
            self._rooms[side] = _Room(self._device, 1 << len(places).bit_length())
        self._rooms[side].send(places, blocks, self.on_device.view(-1))


class _Room:
    """Memory on both sides for some changes."""

    def __init__(self, device: Device, size: int) -> None:
        self.size = size
        self._device = device
        self._host = device.pinned((size,), torch.int64), device.pinned((size,), torch.int32)
        self._there: tuple[Tensor, ...] = tuple(
            torch.zeros(size, dtype=kept.dtype, device=device.torch_device) for kept in self._host
        )

    def send(self, places: NDArray[np.int64], blocks: NDArray[np.int64], table: Tensor) -> None:
        count = len(places)
        self._host[0].numpy()[:count] = places
        self._host[1].numpy()[:count] = blocks
        where, what = (there[:count] for there in self._there)
        for kept, there in zip(self._host, (where, what), strict=True):
            self._device.copy(kept[:count], there)
        self._device.submit(lambda: table.index_copy_(0, where, what))
