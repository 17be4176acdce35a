"""A step's index arrays, packed into one buffer so that one copy brings them to the device."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.executors.inputs import StepInputs
from engine.kernels.fused.device import Device

Ints = NDArray[np.int32]

NO_SLOT = -1  # of a padded row

_MOST_KEPT = 512  # shapes whose views are kept
_ALIGNMENT = 4  # int32s; kernels are compiled for addresses that 16 bytes divide


@dataclass(frozen=True, slots=True)
class StepShape:
    """What decides where a step's arrays lie.

    Attributes:
        tokens: T, padding included.
        sequences: S, padding included.
        sampled: N, padding included.
        narrowed: whether the last layer goes on with the sampled tokens alone, and has arrays of
            its own for them.
    """

    tokens: int
    sequences: int
    sampled: int
    narrowed: bool = False

    def fields(self) -> dict[str, int]:
        """The arrays' names and lengths. Those of tokens come first, so that they lie at the same
        place in all steps of as many tokens."""
        own = {"narrowed_start": self.sampled + 1, "narrowed_slots": self.sampled}
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
            **(own if self.narrowed else {}),
        }


class PackedInputs:
    """Two pinned buffers on the host, used alternately, and one on the device.

    While a step is in flight, the device may still copy from one host buffer; the next step fills
    the other.

    Args:
        device: copies them.
        largest: the largest step.
        others: more arrays, each with its length, that are laid out behind those of `StepShape`.
        of_narrowed: still more, of steps that are narrowed.
    """

    def __init__(
        self,
        device: Device,
        largest: StepShape,
        others: Mapping[str, int],
        of_narrowed: Mapping[str, int] | None = None,
    ) -> None:
        self._device = device
        self._others = dict(others)
        self._of_narrowed = dict(of_narrowed or {})
        size = self._layout(replace(largest, narrowed=True)).size
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

    def _layout(self, shape: StepShape) -> "_Layout":
        more = self._of_narrowed if shape.narrowed else {}
        return _Layout.of(shape.fields() | self._others | more)

    def _of(self, shape: StepShape) -> "_Views":
        """The views for a shape. They are kept, as most steps are of a few shapes."""
        views = self._views.get(shape)
        if views is None:
            if len(self._views) >= _MOST_KEPT:
                self._views.clear()
            layout = self._layout(shape)
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


def fill_packed(arrays: dict[str, Ints], inputs: StepInputs, *, decodes: bool) -> None:
    """Lay a step out for the device, with its padding.

    Padded tokens write nothing and padded sequences see nothing; in a step of decodes each padded
    sequence has a padded token.

    Args:
        arrays: as `PackedInputs.arrays` gives them; written.
        inputs: the step.
        decodes: whether every sequence has one token, and every padded one gets one too.
    """
    tokens, sequences = inputs.num_tokens, inputs.num_sequences
    owners, positions = inputs.owners[:tokens], inputs.positions[:tokens]
    slots = inputs.slots[:sequences]
    owned = slots[owners]
    known = inputs.token_ids[:tokens]
    _padded(arrays["token_ids"], np.where(known < 0, -1 - owned, known), 0)
    _padded(arrays["positions"], positions, 0)
    size = inputs.block_size
    blocks = inputs.tables.rows[owned, positions // size]
    _padded(arrays["cache_slots"], blocks * size + positions % size, -1)
    _padded(arrays["contexts"], inputs.contexts[:sequences], 0)
    _padded(arrays["slots"], slots, 0)
    starts = arrays["query_start"]
    _padded(starts, inputs.query_start[: sequences + 1], tokens)
    if decodes:
        starts[sequences:] = np.arange(sequences, len(starts))
    picked = inputs.picked
    _padded(arrays["sampled_rows"], inputs.query_start[1:][picked] - 1, 0)
    _padded(arrays["sampled_slots"], slots[picked], NO_SLOT)
    _padded(arrays["sampled_positions"], inputs.contexts[picked], 0)
    if "narrowed_slots" in arrays:
        arrays["narrowed_start"][:] = np.arange(len(arrays["narrowed_start"]))
        _padded(arrays["narrowed_slots"], slots[picked], 0)


def _padded(array: Ints, values: Ints, padding: int) -> None:
    array[: len(values)] = values
    array[len(values) :] = padding
