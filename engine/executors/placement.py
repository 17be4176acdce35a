"""The bounds of an engine's steps and the size of its cache."""

from dataclasses import dataclass

import torch

from engine.config import EngineConfig, ModelConfig
from engine.errors import OutOfCache
from engine.executors.choose import Choice
from engine.executors.machine import GIB, free_memory

# Of the KV cache, on a CPU: pages beyond are touched only where live sequences need them. Zeroing
# them was 4% of the time of short runs, and most would only hold what nobody asks for again.
_WARM_BYTES = GIB // 2


@dataclass(frozen=True, slots=True)
class Placement:
    """An engine's choices for this machine, made from its configuration.

    Attributes:
        choice: what it is computed with.
        max_num_seqs, max_batch_tokens: bounds of one step.
        max_model_len: longest context, in tokens.
        num_blocks: blocks of the KV cache.
        warm_blocks: how many of them are used before cached ones are reused; see `BlockPool`.
        reasons: of all choices.
    """

    choice: Choice
    max_num_seqs: int
    max_batch_tokens: int
    max_model_len: int
    num_blocks: int
    warm_blocks: int
    reasons: tuple[str, ...]

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.choice.device


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of a step, whatever the cache can hold.

    Attributes:
        max_num_seqs, max_batch_tokens: sequences, and tokens under the scheduler's budget.
        context: longest context, in tokens.
        max_tokens: most tokens of any step: a prompt that is not cut into chunks is one step.
    """

    max_num_seqs: int
    max_batch_tokens: int
    context: int
    max_tokens: int

    @classmethod
    def of(
        cls,
        config: EngineConfig,
        model: ModelConfig,
        *,
        on_gpu: bool,
        batch_tokens: int | None = None,
    ) -> "Bounds":
        """Fill in what the configuration leaves open.

        Args:
            config: the engine's settings.
            model: the model.
            on_gpu: whether the device wants as large steps as a GPU.
            batch_tokens: tokens of a step, if the configuration names none; ``None`` is 8,192 on a
                GPU and 1,024 elsewhere.
        """
        max_num_seqs = config.max_num_seqs or (1024 if on_gpu else 128)
        usual = batch_tokens or (8192 if on_gpu else 1024)
        asked = config.max_batch_tokens or usual
        max_batch_tokens = max(asked, max_num_seqs)
        context = min(config.max_model_len or model.max_position, model.max_position)
        whole = 0 if config.chunked_prefill else context
        return cls(max_num_seqs, max_batch_tokens, context, max(max_batch_tokens, whole))


def place(
    config: EngineConfig,
    model: ModelConfig,
    choice: Choice,
    bounds: Bounds | None = None,
    budget: tuple[int, str] | None = None,
    mapped: int = 0,
) -> Placement:
    """Fill in every bound that the configuration leaves open, with the weights loaded.

    Args:
        config: the engine's settings.
        model: the model.
        choice: what it is computed with.
        bounds: of a step, where they are known already.
        budget: bytes for the cache where the configuration names none, and why; ``None`` takes a
            share of what is free.
        mapped: bytes of weights that are mapped from a file. The system counts them as free, as it
            could drop them, but every step reads them.

    Raises:
        OutOfCache: the KV cache cannot hold even one block.
    """
    on_gpu = choice.device.type == "cuda"
    bounds = bounds or Bounds.of(config, model, on_gpu=on_gpu)
    block_bytes = choice.backend.block_bytes(model, config.block_size, choice.cache_dtype)
    reasons = choice.reasons
    if config.kv_cache_bytes:
        available = config.kv_cache_bytes
    else:
        available, reason = budget or _cache_budget(choice.device, mapped)
        reasons = (*reasons, reason)
    most = bounds.max_num_seqs * -(-bounds.context // config.block_size)
    num_blocks = min(available // block_bytes, most)
    if num_blocks < 1:
        raise OutOfCache(
            f"The KV cache may take {available:,} bytes, but one block of {config.block_size} "
            f"tokens takes {block_bytes:,}: raise kv_cache_bytes."
        )
    return Placement(
        choice=choice,
        max_num_seqs=bounds.max_num_seqs,
        max_batch_tokens=bounds.max_batch_tokens,
        # One whole context must fit, or a lone request could never be finished.
        max_model_len=min(bounds.context, num_blocks * config.block_size),
        num_blocks=num_blocks,
        warm_blocks=num_blocks if on_gpu or config.kv_cache_bytes else _WARM_BYTES // block_bytes,
        reasons=reasons,
    )


def _cache_budget(device: torch.device, mapped: int) -> tuple[int, str]:
    """Bytes, and why."""
    free = max(0, free_memory(device) - mapped)
    if device.type == "cuda":
        return int(free * 0.85), f"a cache of 85% of the {free / GIB:.1f} GiB free on the GPU"
    most = 16 * GIB
    if free // 4 > most:
        return most, f"a cache of {most // GIB} GiB at most, of {free / GIB:.1f} GiB free"
    return free // 4, f"a cache of at most a quarter of the {free / GIB:.1f} GiB free"
