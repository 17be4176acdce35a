"""From a configuration to a model that is ready to execute steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.config import EngineConfig, ModelConfig
from engine.executors.choose import DEFAULT_GROUP, WHOLE_CHANNEL, Choice, choose
from engine.executors.executor import Executor
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.machine import give_back_memory
from engine.executors.native_decoder import NativeDecoder
from engine.executors.native_executor import NativeExecutor
from engine.executors.placement import Placement, place
from engine.executors.torch_executor import TorchExecutor
from engine.kernels.draws import Draws, Tokens
from engine.kernels.fused.backend import DeviceBackend
from engine.kernels.native.backend import NativeBackend
from engine.kernels.native.cache import NativeCache
from engine.models.decoder import Decoder
from engine.models.loading import ModelSource, Preparation, load_model
from engine.quantize.weights import Float8Weights, Int4Weights, Int8Weights

SMALL_MATRIX = 4 << 20  # numbers
MOST_AT_ONCE = 8  # matrices of small models: each is copied a few times for a moment


@dataclass(frozen=True, slots=True)
class Built:
    """A model with its cache, the arrays that steps are handed over in, and who draws tokens."""

    placement: Placement
    executor: Executor
    inputs: StepInputs
    drawing: Callable[[Tensor, Draws], Tokens]


def build(
    config: EngineConfig, model: ModelConfig, source: ModelSource, choice: Choice | None = None
) -> Built:
    """Choose for this machine, load the weights, and take memory for the cache.

    Args:
        config: the engine's settings.
        model: the model.
        source: its weights.
        choice: what was chosen for this machine before.

    Raises:
        InvalidConfig, CheckpointError, OutOfCache: see there.
    """
    choice = choice or choose(config, model)
    at_once = matrices_at_once(model, choice)
    torch.set_num_threads(choice.threads // at_once)
    read: list[str] = []
    decoder = load_decoder(config, model, source, choice, read)
    placement = place(config, model, replace(choice, reasons=(*choice.reasons, *read)))
    # A prompt that is not cut into chunks is one step.
    whole = 0 if config.chunked_prefill else placement.max_model_len
    max_tokens = max(placement.max_batch_tokens, whole)
    max_blocks = -(-placement.max_model_len // config.block_size)
    tables = BlockTables(placement.max_num_seqs, max_blocks, config.block_size)
    inputs = StepInputs(tables, max_tokens)
    executor = _executor(config, placement, decoder, max_tokens, at_once)
    torch.set_num_threads(choice.threads)
    give_back_memory()
    return Built(placement, executor, inputs, choice.backend.draw)


def matrices_at_once(model: ModelConfig, choice: Choice) -> int:
    """How many matrices of a model are read, rounded and laid out at once on a CPU.

    Of models with large ones it is one, by all threads, so that little memory is taken. Threads
    that share one meet after each of thousands of operations, and spin while they wait. On matrices
    that take a millisecond, beside a busy neighbour, that was two thirds of the processor time of
    loading.
    Devices copy and compute one after the other by themselves.
    """
    if isinstance(choice.backend, DeviceBackend) or choice.device.type != "cpu":
        return 1
    small = model.hidden_size * model.intermediate_size < SMALL_MATRIX
    return min(choice.threads, MOST_AT_ONCE) if small else 1


def _executor(
    config: EngineConfig,
    placement: Placement,
    decoder: Decoder,
    max_tokens: int,
    at_once: int,
) -> Executor:
    """What runs a decoder: whole layers of the backend, if it has them, or kernel by kernel."""
    choice, model, size = placement.choice, decoder.config, config.block_size
    if isinstance(choice.backend, NativeBackend):
        native = NativeDecoder(
            decoder,
            NativeCache(model, placement.num_blocks, size, choice.cache_dtype),
            max_tokens=max_tokens,
            max_rows=placement.max_num_seqs,
            threads=choice.threads,
            packed_at_once=at_once,
        )
        return NativeExecutor(native)
    decoder.pack()
    cache = KVCache.allocate(model, placement.num_blocks, size, choice.device, choice.dtype)
    return TorchExecutor(decoder, cache)


def load_decoder(
    config: EngineConfig, model: ModelConfig, source: ModelSource, choice: Choice, read: list[str]
) -> Decoder:
    """Load the weights as they were chosen; ``read`` is given a line on what reading them took.

    Raises:
        CheckpointError: see `engine.models.loading.load_model`.
    """
    at_once = matrices_at_once(model, choice)
    backend = choice.backend
    if at_once > 1 and isinstance(backend, NativeBackend):
        backend = NativeBackend(1)
    prepare: Preparation | None = None
    if choice.quantization == "int8":
        prepare = Int8Weights(model, backend)
    elif choice.quantization == "fp8":
        prepare = Float8Weights()
    elif choice.quantization == "int4":
        size = config.group_size or DEFAULT_GROUP
        group = None if size == WHOLE_CHANNEL else size
        prepare = Int4Weights(group, backend, symmetric=config.symmetric)
    return load_model(
        source,
        model,
        backend=choice.backend,
        device=choice.device,
        dtype=choice.dtype,
        prepare=prepare,
        at_once=at_once,
        keep_groups=choice.quantization == "int4" and config.group_size is None,
        report=lambda report: read.append(str(report)),
    )
