"""Runners that compute nothing, for measuring what the host does around them."""

from collections.abc import Callable
from dataclasses import dataclass
from time import thread_time

import numpy as np
import torch

from engine.config import EngineConfig, ModelConfig, RopeConfig
from engine.executors.choose import Choice
from engine.executors.device.build import build_device_runner
from engine.executors.executor import Pending
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.placement import Placement
from engine.executors.runner import Sampled, SampledTokens
from engine.kernels.fused.device import Device, Launches
from engine.kernels.fused.stand_in import StandIn
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.reference.stand_in import StandInBackend
from engine.models.decoder import Decoder
from engine.scheduler.step import Step

VOCAB = 32_000
END, TOKEN = 5, 7
BLOCK = 16
CONTEXT = 4_096
MODEL = ModelConfig(
    family="llama",
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=16,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=16,
    max_position=CONTEXT,
    rms_norm_eps=1e-5,
    rope=RopeConfig(),
    tie_embeddings=True,
    eos_token_ids=(END,),
)


@dataclass(slots=True)
class Launched:
    """A step that is done as soon as it is launched."""

    runner: "IdleRunner"
    count: int

    def collect(self) -> SampledTokens:
        """See `Pending.collect`."""
        began = thread_time()
        sampled = SampledTokens(np.full(self.count, TOKEN, dtype=np.int64))
        self.runner.answering += thread_time() - began
        return sampled


class IdleRunner:
    """Lays out steps, computes none, and takes the time of what it does.

    Args:
        sequences: slots.
        max_in_flight: see `StepRunner`.
    """

    def __init__(self, sequences: int, max_in_flight: int) -> None:
        choice = Choice(
            torch.device("cpu"), torch.float32, ReferenceBackend(), "none", torch.float32, 1
        )
        blocks = (sequences + 16) * 128 + CONTEXT // BLOCK
        budget = max(8_192, sequences)
        self.placement = Placement(choice, sequences, budget, CONTEXT, blocks, blocks, ())
        self.max_in_flight = max_in_flight
        tables = BlockTables(sequences, CONTEXT // BLOCK, BLOCK)
        self._inputs = StepInputs(tables, budget)
        self.launched_at = self.filling = self.answering = 0.0

    def launch(self, step: Step) -> Launched:
        """See `StepRunner.launch`."""
        self.launched_at = began = thread_time()
        self._inputs.fill(step)
        self.filling = thread_time() - began
        return Launched(self, len(self._inputs.picked))

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `StepRunner.on_layer`."""


class IdleDevice(StandIn):
    """Takes work and drops it."""

    def submit(self, work: Launches) -> None:
        """See `Device.submit`."""


class IdleBackend(StandInBackend):
    """Opens it."""

    def open(self, torch_device: torch.device) -> Device:
        """See `DeviceBackend.open`."""
        return IdleDevice()


class TimedDeviceRunner:
    """The runner of GPUs, and the time that its calls take.

    Args:
        sequences: slots.
        max_in_flight: see `StepRunner`.
    """

    def __init__(self, sequences: int, max_in_flight: int) -> None:
        backend = IdleBackend()
        choice = Choice(torch.device("cpu"), torch.float32, backend, "none", torch.float32, 1)
        blocks = (sequences + 16) * 128 + CONTEXT // BLOCK
        config = EngineConfig(
            block_size=BLOCK,
            max_num_seqs=sequences,
            max_batch_tokens=max(8_192, sequences),
            kv_cache_bytes=blocks * backend.block_bytes(MODEL, BLOCK, torch.float32),
            overlap=max_in_flight > 0,
        )
        decoder = Decoder(MODEL, backend)
        decoder.finish(torch.device("cpu"))
        self._runner = build_device_runner(config, MODEL, choice, backend, decoder)
        self.placement = self._runner.placement
        self.max_in_flight = self._runner.max_in_flight
        self.launched_at = self.filling = self.answering = 0.0

    def launch(self, step: Step) -> Pending[Sampled]:
        """See `StepRunner.launch`."""
        self.launched_at = began = thread_time()
        pending = self._runner.launch(step)
        self.filling = thread_time() - began
        return TimedPending(self, pending)

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `StepRunner.on_layer`."""


@dataclass(slots=True)
class TimedPending:
    """A step of it."""

    runner: TimedDeviceRunner
    pending: Pending[Sampled]

    def collect(self) -> Sampled:
        """See `Pending.collect`."""
        began = thread_time()
        sampled = self.pending.collect()
        self.runner.answering += thread_time() - began
        return sampled
