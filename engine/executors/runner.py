"""Executes steps on a device: weights, KV cache, block tables and sampler live here."""

from collections.abc import Callable

import torch

from engine.catalog import ModelFiles
from engine.config import EngineConfig, ModelConfig
from engine.executors.build import build
from engine.executors.inputs import StepInputs
from engine.sampling.sampler import Sampler
from engine.scheduler.step import SampledToken, Step


class Runner:
    """A model on one device.

    Attributes:
        placement: what was chosen for the device.
        executor: computes the steps.

    Raises:
        InvalidConfig, CheckpointError, OutOfCache: from choosing the device, loading the weights
            and taking memory for the cache.
    """

    def __init__(self, config: EngineConfig, model: ModelConfig, files: ModelFiles) -> None:
        built = build(config, model, files)
        self.placement = built.placement
        self.executor = built.executor
        self._inputs: StepInputs = built.inputs
        self._sampler = Sampler(
            model.vocab_size,
            self.placement.max_num_seqs,
            model.eos_token_ids,
            self.placement.device,
            config.seed,
            built.drawing,
        )

    def on_layer(self, call: Callable[[], None]) -> None:
        """Have ``call`` called ahead of every layer of every step, where a step may be long."""
        self.executor.on_layer(call)

    @torch.inference_mode()
    def execute(self, step: Step) -> dict[int, SampledToken]:
        """Compute a step's keys and values, and choose the next tokens.

        Returns:
            The chosen token by slot, for every work with ``sample`` set.
        """
        for work in step.works:
            if work.admission is not None:
                self._sampler.admit(work.slot, work.admission)
        self._inputs.fill(step)
        slots = self._inputs.sampled_slots
        wanted = self._sampler.reads_logits(slots)
        scores = self.executor.execute(self._inputs, logits=wanted)
        if wanted and scores.logits is not None:
            sampled = self._sampler.sample(scores.logits, slots)
        else:
            sampled = self._sampler.choose(scores.greatest.tolist(), slots)
        return dict(zip(slots, sampled, strict=True))
