"""Runs a step's passes on a device: as they are, as one graph, or in recorded pieces."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine.executors.device.buffers import Buffers
from engine.executors.device.decoder import DeviceDecoder
from engine.executors.device.recorded import Recorded
from engine.kernels.fused.device import Device, Launches
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import LayerCache, StepTensors

Piece = tuple[Hashable | None, Launches]
"""Launches, and what tells them from others where they may be recorded."""


@dataclass(frozen=True, slots=True)
class Narrowed:
    """The last layer's attention of the sampled tokens alone, each a decode of its own.

    Attributes:
        tensors: where these tokens' sequences and their keys are.
        tasks: how the attention is divided.
    """

    tensors: StepTensors
    tasks: AttentionTasks


@dataclass(frozen=True, slots=True)
class DeviceStep:
    """A step as it lies on the device.

    Attributes:
        tensors: its arrays.
        tasks: how its attention is divided.
        sampled_rows: int32 [N]; which tokens' scores are wanted.
        narrowed: set where the last layer goes on with these tokens alone.
    """

    tensors: StepTensors
    tasks: AttentionTasks
    sampled_rows: Tensor
    narrowed: Narrowed | None = None

    @property
    def num_tokens(self) -> int:
        """T, padding included."""
        return self.tensors.token_ids.shape[0]

    @property
    def num_sampled(self) -> int:
        """N, padding included."""
        return self.sampled_rows.shape[0]


class DeviceExecutor:
    """A decoder with its cache.

    Args:
        device: runs it.
        decoder: the model.
        caches: of every layer.
        last_tokens: int32 [max_num_seqs] on the device; the token that each slot sampled last.
        recorded: keeps the graphs.
        max_recorded_tokens: most tokens of a step with prompts whose pieces are recorded. A larger
            one takes the device longer than the host needs to launch it.
    """

    def __init__(
        self,
        device: Device,
        decoder: DeviceDecoder,
        caches: Sequence[LayerCache],
        last_tokens: Tensor,
        recorded: Recorded,
        max_recorded_tokens: int,
    ) -> None:
        self.device = device
        self.decoder = decoder
        self._caches = caches
        self._last_tokens = last_tokens
        self._recorded = recorded
        self.max_recorded_tokens = max_recorded_tokens

    @property
    def max_tokens(self) -> int:
        """Most tokens of a step."""
        return len(self.decoder.buffers.residual)

    def decode(self, step: DeviceStep, draw: Launches | None) -> Tensor:
        """Run a step of decodes, as one graph where it may be.

        Args:
            step: its S = T sequences have one token each, and N = S are sampled.
            draw: launches that sample from the logits, if they are the same in every step of this
                shape; they join the graph then.

        Returns:
            The logits, float32 [N, vocab]; overwritten by the next step.
        """

        def whole() -> None:
            _run(self._pieces(step))
            if draw is not None:
                draw()

        self._recorded.run(("decode", step.tasks.launches, step.num_tokens, draw is None), whole)
        return self.decoder.buffers.logits[: step.num_sampled]

    def prefill(self, step: DeviceStep) -> Tensor:
        """Run any step, with what lies between two layers' attention recorded if it is small.

        Returns:
            As `decode`.
        """
        logits = self.decoder.buffers.logits[: step.num_sampled]
        pieces = self._pieces(step)
        if step.num_tokens > self.max_recorded_tokens:
            self.device.submit(lambda: _run(pieces))
            return logits
        for key, piece in pieces:
            if key is None:
                self.device.submit(piece)
            else:
                self._recorded.run(key, piece)
        return logits

    def score(self, step: DeviceStep) -> Tensor:
        """Run a step, and wait for the logits of all its tokens: float32 [T, vocab], on the host.

        For measuring a model; nothing is sampled.
        """
        decoder, device = self.decoder, self.device
        count, most = step.num_tokens, len(decoder.buffers.logits)
        rows = torch.arange(count, dtype=torch.int32, device=device.torch_device)
        device.submit(lambda: _run(self._pieces(step)[:-1]))
        scores = []
        for first in range(0, count, most):
            some = rows[first : first + most]
            buffers = decoder.buffers.rows(count, len(some))
            device.submit(partial(decoder.head, buffers, some))
            scores.append(device.fetch(buffers.logits))
        return torch.cat(scores)

    def _pieces(self, step: DeviceStep) -> list[Piece]:
        """The step's launches in order. Those between two layers' attention depend on the number of
        tokens alone; attention, and what reads the numbers of rows, depends on more."""
        decoder, caches = self.decoder, self._caches
        buffers = decoder.buffers.rows(step.num_tokens, step.num_sampled)
        tensors, tasks, rows = step.tensors, step.tasks, step.sampled_rows
        last = decoder.num_layers - 1

        def between(index: int, work: Launches) -> Piece:
            return ("between", index, step.num_tokens), work

        def attend(index: int) -> Launches:
            return lambda: decoder.attend(index, buffers, tensors, tasks, caches[index])

        def proceed(index: int) -> Launches:
            following = caches[index + 1] if index < last else None
            return lambda: decoder.proceed(index, buffers, tensors, following)

        pieces = [
            between(-1, lambda: decoder.begin(buffers, tensors, self._last_tokens, caches[0]))
        ]
        for index in range(last):
            pieces += [(None, attend(index)), between(index, proceed(index))]
        if step.narrowed is not None:
            return pieces + self._narrowed(step, step.narrowed, buffers)
        pieces += [(None, attend(last)), between(last, proceed(last))]
        pieces.append((None, lambda: decoder.head(buffers, rows)))
        return pieces

    def _narrowed(self, step: DeviceStep, narrowed: Narrowed, buffers: Buffers) -> list[Piece]:
        """The last layer and the head, of the sampled tokens alone."""
        decoder, last = self.decoder, self.decoder.num_layers - 1
        few = decoder.buffers.narrowed(step.num_sampled)

        def attend() -> None:
            decoder.narrow(buffers, few, step.sampled_rows)
            decoder.attend(last, few, narrowed.tensors, narrowed.tasks, self._caches[last])

        def proceed() -> None:
            decoder.proceed(last, few, narrowed.tensors, None)
            decoder.head(few, None)

        return [(None, attend), (("narrowed", step.num_sampled), proceed)]


def _run(pieces: Sequence[Piece]) -> None:
    for _, work in pieces:
        work()
