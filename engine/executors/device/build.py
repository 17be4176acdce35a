"""From loaded weights to a runner on a device, with the cache as large as memory allows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import EngineConfig, ModelConfig
from engine.executors.choose import Choice
from engine.executors.device.decoder import DeviceDecoder
from engine.executors.device.executor import DeviceExecutor, DeviceStep
from engine.executors.device.recorded import Recorded
from engine.executors.device.runner import DeviceRunner
from engine.executors.device.sizes import all_sizes
from engine.executors.device.tables import DeviceTables
from engine.executors.machine import GIB
from engine.executors.placement import Bounds, place
from engine.kernels.fused.backend import DeviceBackend, Limits
from engine.kernels.fused.cache import make_cache
from engine.kernels.fused.device import Device
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.fused.tensors import LayerCache, StepTensors
from engine.models.decoder import Decoder
from engine.sampling.device_sampler import DeviceSampler

# Of what is free once everything else has its memory: for what libraries take later.
_SHARE = 0.97

# Steps with prompts of up to so many tokens are recorded in pieces.
_RECORDED_TOKENS = 2048


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """A model on its device, before it has a cache."""

    device: Device
    decoder: DeviceDecoder
    bounds: Bounds
    task_maker: TaskMaker
    sampler: DeviceSampler


def build_device_runner(
    config: EngineConfig,
    model: ModelConfig,
    choice: Choice,
    backend: DeviceBackend,
    decoder: Decoder,
) -> DeviceRunner:
    """Take memory for steps, run the largest one, and give the cache what is left.

    Args:
        config: the engine's settings.
        model: the model.
        choice: what was chosen for the machine.
        backend: ``choice.backend``.
        decoder: finished; its projections are moved out of it.

    Raises:
        OutOfCache: no memory is left for the cache.
    """
    device = backend.open(choice.device)
    with device.use():
        return _build(config, model, choice, backend, device, decoder)


def _build(
    config: EngineConfig,
    model: ModelConfig,
    choice: Choice,
    backend: DeviceBackend,
    device: Device,
    decoder: Decoder,
) -> DeviceRunner:
    bounds = Bounds.of(config, model, on_gpu=True)
    limits = Limits(
        model,
        bounds.max_tokens,
        bounds.max_num_seqs,
        config.block_size,
        choice.dtype,
        cascade=config.cascade,
    )
    maker = backend.task_maker(device, limits)
    kernels = backend.passes(device, limits, maker.max_pieces)
    ready = DeviceModel(
        device,
        DeviceDecoder(decoder, kernels, bounds.max_tokens, bounds.max_num_seqs),
        bounds,
        maker,
        DeviceSampler(
            device,
            backend.sampling(device),
            model.vocab_size,
            bounds.max_num_seqs,
            model.eos_token_ids,
            config.seed,
        ),
    )
    graphs = _try_largest(config, ready, choice)
    free = device.free_memory()
    budget = max(0, int(free * _SHARE) - graphs)
    reason = f"a cache of {budget / GIB:.1f} GiB, what a largest step and its graphs leave free"
    placement = place(config, model, choice, budget=(budget, reason))
    caches = make_cache(
        model, placement.num_blocks, config.block_size, choice.cache_dtype, device.torch_device
    )
    max_blocks = -(-placement.max_model_len // config.block_size)
    tables = DeviceTables(device, placement.max_num_seqs, max_blocks, config.block_size)
    executor = _executor(config, ready, caches)
    return DeviceRunner(placement, executor, ready.sampler, tables, maker, overlap=config.overlap)


def _executor(
    config: EngineConfig, ready: DeviceModel, caches: Sequence[LayerCache]
) -> DeviceExecutor:
    return DeviceExecutor(
        ready.device,
        ready.decoder,
        caches,
        ready.sampler.last_tokens,
        Recorded(ready.device, enabled=config.graphs),
        _RECORDED_TOKENS if config.graphs else 0,
    )


@torch.inference_mode()
def _try_largest(config: EngineConfig, ready: DeviceModel, choice: Choice) -> int:
    """Run steps of the largest size without a sequence, so that all their memory is taken.

    Returns:
        Bytes that the graphs of all sizes will take, from one that is recorded here.
    """
    bounds, device = ready.bounds, ready.device
    model = ready.decoder.config
    caches = make_cache(model, 1, config.block_size, choice.cache_dtype, device.torch_device)
    executor = _executor(config, ready, caches)
    most = bounds.max_num_seqs
    executor.prefill(_empty_step(ready, bounds.max_tokens, most, decodes=False))
    decodes = _empty_step(ready, most, most, decodes=True)
    executor.decode(decodes, None)
    before = device.free_memory()
    if not config.graphs:
        return 0
    executor.decode(decodes, None)
    return max(0, before - device.free_memory()) * len(all_sizes(most))


def _empty_step(ready: DeviceModel, tokens: int, sequences: int, *, decodes: bool) -> DeviceStep:
    """A step of padding alone."""
    device, maker = ready.device.torch_device, ready.task_maker
    numbers = np.zeros(sequences, dtype=np.int32)
    starts = np.minimum(np.arange(sequences + 1, dtype=np.int32), tokens if decodes else 0)
    fields = {name: np.zeros(size, dtype=np.int32) for name, size in maker.sizes.items()}
    table = numbers[:, None]
    tasks = maker.make(
        fields, starts, numbers, numbers, table, num_decodes=sequences if decodes else 0
    )

    def put(array: NDArray[np.int32]) -> Tensor:
        return torch.from_numpy(array).to(device)

    by_token = np.zeros(tokens, dtype=np.int32)
    tensors = StepTensors(
        token_ids=put(by_token),
        positions=put(by_token),
        cache_slots=put(by_token - 1),
        query_start=put(starts),
        contexts=put(numbers),
        slots=put(numbers),
        block_tables=put(table),
    )
    on_device = {name: put(array) for name, array in fields.items()}
    return DeviceStep(tensors, tasks.on(on_device), put(numbers))
