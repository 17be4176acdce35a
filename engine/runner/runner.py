"""Executes steps on a device: weights, KV cache, block tables and sampler live here."""

from collections.abc import Callable

import torch

from engine.cache.kv_cache import KVCache
from engine.catalog import ModelFiles
from engine.config import EngineConfig, ModelConfig
from engine.errors import InvalidConfig
from engine.kernels.native import library
from engine.models.loading import load_model
from engine.quantise.smooth import calibration_prompts, smooth
from engine.runner.inputs import BlockTables
from engine.runner.machine import Placement, pick_device, pick_dtype, place
from engine.runner.sampler import Sampler
from engine.scheduler.step import SampledToken, Step
from engine.tokenizer import Tokenizer


class Runner:
    """A model on one device.

    Attributes:
        placement: what was chosen for the device.
        kernels: ``native`` or ``reference``; built now, so that no step waits for a compiler.

    Raises:
        InvalidConfig, CheckpointError, OutOfCache: from choosing the device, loading the weights
            and taking memory for the cache.
    """

    def __init__(
        self, config: EngineConfig, model: ModelConfig, files: ModelFiles, tokenizer: Tokenizer
    ) -> None:
        device = pick_device(config)
        dtype = pick_dtype(config, device)
        in_int8 = config.quantization == "int8"
        if in_int8 and device.type != "cpu":
            raise InvalidConfig("quantization int8 runs on CPUs only; leave it out on a GPU.")
        self._decoder = load_model(files, model, device=device, dtype=dtype, pack=not in_int8)
        if in_int8:
            smooth(self._decoder, calibration_prompts(tokenizer))
            self._decoder.quantise()
        self.placement: Placement = place(config, model, device, dtype)
        torch.set_num_threads(self.placement.threads)
        self.kernels = "native" if device.type == "cpu" and library.available() else "reference"
        self._cache = KVCache.allocate(
            model, self.placement.num_blocks, config.block_size, device, dtype
        )
        self._tables = BlockTables(
            self.placement.max_num_seqs,
            -(-self.placement.max_model_len // config.block_size),
            config.block_size,
        )
        self._sampler = Sampler(
            model.vocab_size,
            self.placement.max_num_seqs,
            model.eos_token_ids,
            device,
            config.seed,
        )

    def on_layer(self, call: Callable[[], None]) -> None:
        """Have ``call`` called ahead of every layer of every step.

        On a CPU only: on a GPU no step is long, and what is called does not wait for the device.
        """
        if self.placement.device.type == "cpu":
            for layer in self._decoder.layers:
                layer.register_forward_pre_hook(lambda module, arguments: call())

    @torch.inference_mode()
    def execute(self, step: Step) -> dict[int, SampledToken]:
        """Compute a step's keys and values, and choose the next tokens.

        Returns:
            The chosen token by slot, for every work with ``sample`` set.
        """
        for work in step.works:
            if work.admission is not None:
                self._sampler.admit(work.slot, work.admission)
        inputs = self._tables.prepare(step, self.placement.device)
        hidden = self._decoder(inputs.token_ids, inputs.positions, inputs.attention, self._cache)
        if not inputs.sampled_slots:
            return {}
        logits = self._decoder.logits(hidden[inputs.sampled_rows])
        sampled = self._sampler.sample(logits, inputs.sampled_slots)
        return dict(zip(inputs.sampled_slots, sampled, strict=True))
