"""In which ways whole engines are compared with transformers, and what shows that one was taken."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import transformers

from engine.executors.device.runner import DeviceRunner
from engine.executors.runner import StepRunner
from engine.kernels.fused.tasks import AttentionTasks

_TINY: Mapping[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "head_dim": 64,
}
FAMILIES: Mapping[str, transformers.PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(**_TINY),
    "mistral": transformers.MistralConfig(**_TINY, sliding_window=50),
    "qwen2": transformers.Qwen2Config(**{**_TINY, "head_dim": 32}),
    "qwen3": transformers.Qwen3Config(**_TINY, tie_word_embeddings=True),
}
# How far below the best one a token's score may be, in standard deviations of all scores.
MOST_GAP = {"float32": 1e-3, "bfloat16": 0.15}
_FEW = ("llama", "qwen3")
_PLAIN: Mapping[str, Any] = {"kv_cache_bytes": 2**24}


@dataclass(frozen=True, slots=True)
class Way:
    """How an engine is run.

    Attributes:
        settings: of `EngineConfig`.
        dtypes: that it is run in.
        families: that it is run with.
        shares: whether prompts have long prefixes in common.
        caches, preempts: whether prefixes must have come from the cache, and sequences must have
            been preempted.
        segments: whether attention must have read some keys once for many, or must not have.
        most_mean: of the gaps, where weights are rounded and single ones say nothing.
    """

    settings: Mapping[str, Any]
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    families: tuple[str, ...] = tuple(FAMILIES)
    shares: bool = False
    caches: bool = False
    preempts: bool = False
    segments: bool | None = None
    most_mean: float | None = None


def _few_bits(most_mean: float, **settings: str) -> Way:
    return Way({**_PLAIN, **settings}, ("bfloat16",), families=_FEW, most_mean=most_mean)


WAYS: Mapping[str, Way] = {
    "whole": Way({**_PLAIN, "prefix_caching": False}),
    "cached, chunked": Way({**_PLAIN, "max_batch_tokens": 48, "max_num_seqs": 48}, caches=True),
    "cascade": Way(_PLAIN, families=_FEW, shares=True, caches=True, segments=True),
    "preempted": Way({"max_num_seqs": 16, "output_reserve": 0.0}, preempts=True),
    "no cascade": Way(
        {**_PLAIN, "cascade": False}, ("float32",), families=_FEW, shares=True, segments=False
    ),
    "no graphs": Way({**_PLAIN, "graphs": False}, ("bfloat16",), families=_FEW),
    "no overlap": Way({**_PLAIN, "overlap": False}, ("bfloat16",), families=_FEW),
    "no graphs, no overlap": Way(
        {**_PLAIN, "graphs": False, "overlap": False}, ("float32",), families=_FEW
    ),
    "blocks of 128": Way(
        {**_PLAIN, "block_size": 128}, families=_FEW, shares=True, caches=True, segments=True
    ),
    "windows over shared blocks": Way(
        _PLAIN, families=("mistral",), shares=True, caches=True, segments=False
    ),
    "int8": _few_bits(0.02, quantization="int8"),
    "fp8": _few_bits(0.3, quantization="fp8"),
    "fp8, fp8 cache": _few_bits(0.3, quantization="fp8", kv_cache_dtype="fp8"),
    "int8, int8 cache": _few_bits(0.02, quantization="int8", kv_cache_dtype="int8"),
    "int4": _few_bits(0.8, quantization="int4"),
}


@dataclass
class Seen:
    """What a runner did.

    Attributes:
        divisions: of attention; a step that is narrowed for its last layer has two.
        segments: of these, those with segments.
        graphs: gives the number of graphs that were recorded.
    """

    divisions: int = 0
    segments: int = 0
    graphs: Callable[[], int] = field(default=lambda: 0)


def watch(runner: StepRunner) -> Seen:
    """Watch a runner of a device from here on."""
    assert isinstance(runner, DeviceRunner)
    recorded = runner.executor._recorded
    seen = Seen(graphs=lambda: len(recorded))
    maker = runner._task_maker
    make = maker.make

    def watched(*arguments: Any, **settings: Any) -> AttentionTasks:
        tasks = make(*arguments, **settings)
        seen.divisions += 1
        seen.segments += tasks.segment_tiles > 0
        return tasks

    maker.make = watched  # type: ignore[method-assign]
    return seen
