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


def place(config: EngineConfig, model: ModelConfig, choice: Choice) -> Placement:
    """Fill in every bound that the configuration leaves open, with the weights loaded.

    Raises:
        OutOfCache: the KV cache cannot hold even one block.
    """
    on_gpu = choice.device.type == "cuda"
    max_num_seqs = config.max_num_seqs or (1024 if on_gpu else 128)
    max_batch_tokens = config.max_batch_tokens or (8192 if on_gpu else 1024)
    context = min(config.max_model_len or model.max_position, model.max_position)
    block_bytes = choice.backend.block_bytes(model, config.block_size, choice.cache_dtype)
    reasons = choice.reasons
    if config.kv_cache_bytes:
        budget = config.kv_cache_bytes
    else:
        budget, reason = _cache_budget(choice.device)
        reasons = (*reasons, reason)
    most = max_num_seqs * -(-context // config.block_size)
    num_blocks = min(budget // block_bytes, most)
    if num_blocks < 1:
        raise OutOfCache(
            f"The KV cache may take {budget:,} bytes, but one block of {config.block_size} tokens "
            f"takes {block_bytes:,}: raise kv_cache_bytes."
        )
    return Placement(
        choice=choice,
        max_num_seqs=max_num_seqs,
        max_batch_tokens=max(max_batch_tokens, max_num_seqs),
        # One whole context must fit, or a lone request could never be finished.
        max_model_len=min(context, num_blocks * config.block_size),
        num_blocks=num_blocks,
        warm_blocks=num_blocks if on_gpu or config.kv_cache_bytes else _WARM_BYTES // block_bytes,
        reasons=reasons,
    )


def _cache_budget(device: torch.device) -> tuple[int, str]:
    """Bytes, and why."""
    free = free_memory(device)
    if device.type == "cuda":
        return int(free * 0.85), f"a cache of 85% of the {free / GIB:.1f} GiB free on the GPU"
    most = 16 * GIB
    if free // 4 > most:
        return most, f"a cache of {most // GIB} GiB at most, of {free / GIB:.1f} GiB free"
    return free // 4, f"a cache of at most a quarter of the {free / GIB:.1f} GiB free"
