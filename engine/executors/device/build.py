"""From loaded weights to a runner on a device, with the cache as large as memory allows."""

from dataclasses import dataclass, replace

from engine.config import EngineConfig, ModelConfig
from engine.executors.choose import Choice
from engine.executors.device.decoder import DeviceDecoder
from engine.executors.device.executor import DeviceExecutor
from engine.executors.device.recorded import Recorded
from engine.executors.device.runner import DeviceRunner
from engine.executors.device.sizes import all_sizes
from engine.executors.device.step_tokens import step_tokens
from engine.executors.device.tables import DeviceTables
from engine.executors.device.warm_up import GREEDY, Kinds, warm_up
from engine.executors.machine import GIB
from engine.executors.placement import Bounds, Placement, place
from engine.kernels.fused.backend import DeviceBackend, Limits
from engine.kernels.fused.cache import make_cache
from engine.kernels.fused.device import Device
from engine.kernels.fused.task_maker import TaskMaker
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
    """Take memory for steps, run one of every kind, and give the cache what is left.

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
    if config.max_batch_tokens is None:
        free = device.free_memory() - (config.kv_cache_bytes or 0)
        tokens, reason = step_tokens(
            model, choice.dtype, bounds.max_num_seqs, free, device.multiprocessors
        )
        bounds = Bounds.of(config, model, on_gpu=True, batch_tokens=tokens)
        choice = replace(choice, reasons=(*choice.reasons, reason))
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
    graphs = 0
    if config.warm_up:
        graphs, compiled = _warm_up(config, choice, ready, backend)
        choice = replace(choice, reasons=(*choice.reasons, *compiled))
    free = device.free_memory()
    # Penalized sequences have counts, whose memory doubles when more of them come.
    later = min(6 * bounds.max_num_seqs * model.vocab_size, free // 16)
    budget = max(0, int(free * _SHARE) - graphs - later)
    reason = f"a cache of {budget / GIB:.1f} GiB, what a largest step and its graphs leave free"
    return _runner(config, ready, place(config, model, choice, bounds, (budget, reason)))


def _runner(
    config: EngineConfig, ready: DeviceModel, placement: Placement, *, records: bool = True
) -> DeviceRunner:
    """A runner with a cache of its own, and no graphs yet; it may be kept from making any."""
    device, choice, size = ready.device, placement.choice, config.block_size
    caches = make_cache(
        ready.decoder.config, placement.num_blocks, size, choice.cache_dtype, device.torch_device
    )
    executor = DeviceExecutor(
        device,
        ready.decoder,
        caches,
        ready.sampler.last_tokens,
        Recorded(device, enabled=config.graphs and records),
        _RECORDED_TOKENS if config.graphs else 0,
    )
    max_blocks = -(-placement.max_model_len // size)
    tables = DeviceTables(device, placement.max_num_seqs, max_blocks, size)
    return DeviceRunner(
        placement, executor, ready.sampler, tables, ready.task_maker, overlap=config.overlap
    )


def _warm_up(
    config: EngineConfig, choice: Choice, ready: DeviceModel, backend: DeviceBackend
) -> tuple[int, tuple[str, ...]]:
    """Run steps of every kind over a small cache, with their kernels compiled before.

    Returns:
        Bytes that graphs will take, from one that is recorded here; and what was compiled.
    """
    device, bounds, model = ready.device, ready.bounds, ready.decoder.config
    tokens = min(bounds.context, bounds.max_batch_tokens) + config.block_size
    blocks = -(-tokens // config.block_size)
    size = blocks * choice.backend.block_bytes(model, config.block_size, choice.cache_dtype)
    small = replace(config, kv_cache_bytes=min(size, config.kv_cache_bytes or size))
    placement = place(small, model, choice, bounds, (size, ""))
    said = backend.compile_ahead(
        lambda: warm_up(_runner(config, ready, placement, records=False)), choice.threads
    )
    compiled = (said,) if said else ()
    runner = _runner(config, ready, placement)
    warm_up(runner)
    if not config.graphs:
        return 0, compiled
    largest = Kinds(runner).decodes(bounds.max_num_seqs, GREEDY)
    before = device.free_memory()
    runner.launch(largest).collect()  # ran once before, and is recorded now
    taken = max(0, before - device.free_memory())
    # Every size may have two: with and without shared keys.
    return 2 * taken * len(all_sizes(bounds.max_num_seqs)), compiled
