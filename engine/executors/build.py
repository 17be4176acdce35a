"""From a configuration to a model that is ready to execute steps."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.catalog import ModelFiles
from engine.config import EngineConfig, ModelConfig
from engine.executors.executor import Executor
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.machine import Choice, Placement, choose, give_back_memory, place
from engine.executors.native_decoder import NativeDecoder
from engine.executors.native_executor import NativeExecutor
from engine.executors.torch_executor import TorchExecutor
from engine.kernels.draws import Draws, draw
from engine.kernels.native.cache import NativeCache
from engine.kernels.native.sampling import Drawing
from engine.models.decoder import Decoder
from engine.models.loading import Preparation, load_model
from engine.quantize.weights import Int4Weights, Int8Weights

_WHOLE_CHANNEL = -1
_DEFAULT_GROUP = 32


@dataclass(frozen=True, slots=True)
class Built:
    """A model with its cache, the arrays that steps are handed over in, and who draws tokens."""

    placement: Placement
    executor: Executor
    inputs: StepInputs
    drawing: Callable[[Tensor, Draws], NDArray[np.int64]]


def build(config: EngineConfig, model: ModelConfig, files: ModelFiles) -> Built:
    """Choose for this machine, load the weights, and take memory for the cache.

    Raises:
        InvalidConfig, CheckpointError, OutOfCache: see there.
    """
    choice = choose(config, model)
    torch.set_num_threads(choice.threads)
    decoder = _load(config, model, files, choice)
    placement = place(config, model, choice)
    # A prompt that is not cut into chunks is one step.
    whole = 0 if config.chunked_prefill else placement.max_model_len
    max_tokens = max(placement.max_batch_tokens, whole)
    max_blocks = -(-placement.max_model_len // config.block_size)
    tables = BlockTables(placement.max_num_seqs, max_blocks, config.block_size)
    inputs = StepInputs(tables, max_tokens)
    executor: Executor
    if choice.native:
        cache = NativeCache(model, placement.num_blocks, config.block_size, choice.cache_dtype)
        native = NativeDecoder(
            decoder,
            cache,
            max_tokens=max_tokens,
            max_rows=placement.max_num_seqs,
            threads=choice.threads,
        )
        executor = NativeExecutor(native)
    else:
        decoder.pack()
        kv = KVCache.allocate(
            model, placement.num_blocks, config.block_size, choice.device, choice.dtype
        )
        executor = TorchExecutor(decoder, kv)
    give_back_memory()
    drawing = Drawing(model.vocab_size, choice.threads) if choice.native else draw
    return Built(placement, executor, inputs, drawing)


def _load(config: EngineConfig, model: ModelConfig, files: ModelFiles, choice: Choice) -> Decoder:
    prepare: Preparation | None = None
    if choice.quantization == "int8":
        prepare = Int8Weights(model)
    elif choice.quantization == "int4":
        size = config.group_size or _DEFAULT_GROUP
        group = None if size == _WHOLE_CHANNEL else size
        prepare = Int4Weights(group, symmetric=config.symmetric)
    return load_model(
        files,
        model,
        device=choice.device,
        dtype=choice.dtype,
        prepare=prepare,
        keep_groups=choice.quantization == "int4" and config.group_size is None,
    )
