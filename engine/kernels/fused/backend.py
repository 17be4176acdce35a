"""What a backend offers that runs whole steps on a device."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from engine.config import ModelConfig
from engine.kernels.fused.device import Device, Launches
from engine.kernels.fused.kernels import FusedKernels
from engine.kernels.fused.sampling import SamplingKernels
from engine.kernels.fused.task_maker import AttentionShape, TaskMaker


@dataclass(frozen=True, slots=True)
class Limits:
    """What kernels take their memory for.

    Attributes:
        model: its shape.
        max_tokens, max_num_seqs: the largest step.
        block_size: tokens in a block of the cache.
        dtype: the model's.
        cascade: whether attention may read what sequences share once for all of them.
    """

    model: ModelConfig
    max_tokens: int
    max_num_seqs: int
    block_size: int
    dtype: torch.dtype
    cascade: bool = True

    def attention_shape(
        self,
        multiprocessors: int,
        prefill_rows: tuple[int, ...],
        segment_rows: tuple[int, ...],
    ) -> AttentionShape:
        """What the division of attention depends on.

        Args:
            multiprocessors: of the device.
            prefill_rows, segment_rows: see `AttentionShape`.
        """
        model = self.model
        windows = [model.window(layer) for layer in range(model.num_layers)]
        return AttentionShape(
            heads=model.num_heads,
            kv_heads=model.num_kv_heads,
            block_size=self.block_size,
            multiprocessors=multiprocessors,
            prefill_rows=prefill_rows,
            segment_rows=segment_rows,
            max_sequences=self.max_num_seqs,
            max_tokens=self.max_tokens,
            window=max((window for window in windows if window is not None), default=None),
            shares=self.cascade and None in windows,
        )


@runtime_checkable
class DeviceBackend(Protocol):
    """A `Backend` that has fused passes as well."""

    def open(self, torch_device: torch.device) -> Device:
        """The device that runs its steps."""
        ...

    def task_maker(self, device: Device, limits: Limits) -> TaskMaker:
        """What divides the attention of a step among programs, on the host."""
        ...

    def passes(self, device: Device, limits: Limits, max_pieces: int) -> FusedKernels:
        """The passes of a step, with memory of their own for the largest one.

        Args:
            device: runs them.
            limits: of a step.
            max_pieces: see `TaskMaker`.
        """
        ...

    def compile_ahead(self, work: Launches, threads: int) -> str:
        """Compile the kernels that work launches, several at once, and run none of them.

        Args:
            work: makes launches; what they would write is not written.
            threads: that may compile.

        Returns:
            What was done, in a few words; empty where nothing is compiled.
        """
        ...

    def sampling(self, device: Device) -> SamplingKernels:
        """The kernels that sample tokens."""
        ...
