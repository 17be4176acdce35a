"""From a configuration to a model that is ready to execute steps."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.catalog import ModelFiles
from engine.config import EngineConfig, ModelConfig
from engine.executors.choose import DEFAULT_GROUP, WHOLE_CHANNEL, Choice, choose
from engine.executors.executor import Executor
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.machine import give_back_memory
from engine.executors.native_decoder import NativeDecoder
from engine.executors.native_executor import NativeExecutor
from engine.executors.native_weights import NativeWeights, pack_decoder
from engine.executors.placement import Placement, place
from engine.executors.torch_executor import TorchExecutor
from engine.kernels.draws import Draws, Tokens
from engine.kernels.fused.backend import DeviceBackend
from engine.kernels.native.backend import NativeBackend
from engine.kernels.native.build import build as build_kernels
from engine.kernels.native.cache import NativeCache
from engine.models.decoder import Decoder
from engine.models.loading import ModelSource, Preparation, load_model
from engine.prepared.keeping import Keeping
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
    torch.set_num_threads(choice.threads // matrices_at_once(model, choice))
    read: list[str] = []
    keeping = _keeping(config, model, source, choice)
    kept = None if keeping is None else keeping.read(choice.threads)
    weights: Decoder | NativeWeights
    mapped = 0
    if kept is None:
        weights = _load(config, model, source, choice, read)
    else:
        weights = NativeWeights.of(model, kept.tensors, kept.form)
        mapped = sum(each.nbytes for each in kept.tensors.values())
        read.append("weights as an earlier start prepared them")
    choice = replace(choice, reasons=(*choice.reasons, *read))
    placement = place(config, model, choice, mapped=mapped)
    # A prompt that is not cut into chunks is one step.
    whole = 0 if config.chunked_prefill else placement.max_model_len
    max_tokens = max(placement.max_batch_tokens, whole)
    max_blocks = -(-placement.max_model_len // config.block_size)
    tables = BlockTables(placement.max_num_seqs, max_blocks, config.block_size)
    inputs = StepInputs(tables, max_tokens)
    executor = _executor(config, placement, weights, max_tokens)
    torch.set_num_threads(choice.threads)
    give_back_memory()
    if keeping is not None and kept is None and isinstance(weights, NativeWeights):
        keeping.keep(weights.tensors(), weights.form())
    return Built(placement, executor, inputs, choice.backend.draw)


def _keeping(
    config: EngineConfig, model: ModelConfig, source: ModelSource, choice: Choice
) -> Keeping | None:
    """Where the weights for the kernels in C are kept. Plain ones take as long to read as these."""
    prepared = isinstance(choice.backend, NativeBackend) and choice.quantization != "none"
    if not (config.keep_prepared_weights and prepared and isinstance(source, ModelFiles)):
        return None
    kernels = build_kernels().name  # says their sources, the compiler and the processor
    how = (choice.quantization, choice.dtype, config.group_size, config.symmetric)
    return Keeping.of(source, (model, how, kernels, torch.__version__, np.__version__))


def _load(
    config: EngineConfig, model: ModelConfig, source: ModelSource, choice: Choice, read: list[str]
) -> Decoder | NativeWeights:
    """The weights, prepared, and laid out where the kernels in C run on them."""
    decoder = load_decoder(config, model, source, choice, read)
    if not isinstance(choice.backend, NativeBackend):
        return decoder
    at_once = matrices_at_once(model, choice)
    return pack_decoder(decoder, threads=choice.threads, at_once=at_once)


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
    weights: Decoder | NativeWeights,
    max_tokens: int,
) -> Executor:
    """What runs a decoder: whole layers of the backend, if it has them, or kernel by kernel."""
    choice, model, size = placement.choice, weights.config, config.block_size
    if isinstance(weights, NativeWeights):
        native = NativeDecoder(
            weights,
            NativeCache(model, placement.num_blocks, size, choice.cache_dtype),
            max_tokens=max_tokens,
            max_rows=placement.max_num_seqs,
            threads=choice.threads,
        )
        return NativeExecutor(native)
    weights.pack()
    cache = KVCache.allocate(model, placement.num_blocks, size, choice.device, choice.dtype)
    return TorchExecutor(weights, cache)


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
