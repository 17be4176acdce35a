"""A step's index arrays, packed into one buffer so that one copy brings them to the device."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.kernels.fused.device import Device

Ints = NDArray[np.int32]

_MOST_KEPT = 512  # shapes whose views are kept
_ALIGNMENT = 4  # int32s; kernels are compiled for addresses that 16 bytes divide


@dataclass(frozen=True, slots=True)
class StepShape:
    """What decides where a step's arrays lie.

    Attributes:
        tokens: T, padding included.
        sequences: S, padding included.
        sampled: N, padding included.
    """

    tokens: int
    sequences: int
    sampled: int

    def fields(self) -> dict[str, int]:
        """The arrays' names and lengths. Those of tokens come first, so that they lie at the same
        place in all steps of as many tokens."""
        return {
            "token_ids": self.tokens,
            "positions": self.tokens,
            "cache_slots": self.tokens,
            "query_start": self.sequences + 1,
            "contexts": self.sequences,
            "slots": self.sequences,
            "sampled_rows": self.sampled,
            "sampled_slots": self.sampled,
            "sampled_positions": self.sampled,
        }


class PackedInputs:
    """Two pinned buffers on the host, used alternately, and one on the device.

    While a step is in flight, the device may still copy from one host buffer; the next step fills
    the other.

    Args:
        device: copies them.
        largest: the largest step.
        others: more arrays, each with its length, that are laid out behind those of `StepShape`.
    """

    def __init__(self, device: Device, largest: StepShape, others: Mapping[str, int]) -> None:
        self._device = device
        self._others = dict(others)
        size = _Layout.of(largest.fields() | self._others).size
        self._host = [device.pinned((size,), torch.int32) for _ in range(2)]
        self._on_device = torch.zeros(size, dtype=torch.int32, device=device.torch_device)
        self._views: dict[StepShape, _Views] = {}

    def arrays(self, side: int, shape: StepShape) -> dict[str, Ints]:
        """Views of one of the host's buffers, 0 or 1, for a step of this shape."""
        return self._of(shape).arrays[side]

    def tensors(self, shape: StepShape) -> dict[str, Tensor]:
        """Views of the device's buffer for a step of this shape."""
        return self._of(shape).tensors

    def send(self, side: int, shape: StepShape) -> None:
        """Submit the copy of what a step of this shape needs."""
        size = self._of(shape).size
        self._device.copy(self._host[side][:size], self._on_device[:size])

    def _of(self, shape: StepShape) -> "_Views":
        """The views for a shape. They are kept, as most steps are of a few shapes."""
        views = self._views.get(shape)
        if views is None:
            if len(self._views) >= _MOST_KEPT:
                self._views.clear()
            layout = _Layout.of(shape.fields() | self._others)
            places = layout.places.items()
            views = self._views[shape] = _Views(
                layout.size,
                [{name: host.numpy()[place] for name, place in places} for host in self._host],
                {name: self._on_device[place] for name, place in places},
            )
        return views


@dataclass(frozen=True, slots=True)
class _Views:
    size: int
    arrays: list[dict[str, Ints]]
    tensors: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class _Layout:
    places: dict[str, slice]
    size: int

    @classmethod
    def of(cls, lengths: Mapping[str, int]) -> "_Layout":
        places, start = {}, 0
        for name, length in lengths.items():
            places[name] = slice(start, start + length)
            start += -(-length // _ALIGNMENT) * _ALIGNMENT
        return cls(places, start)
