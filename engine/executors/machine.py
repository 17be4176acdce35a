"""What the machine offers, and what an engine takes of it where its configuration says nothing."""

import ctypes
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.config import EngineConfig, ModelConfig
from engine.errors import InvalidConfig, OutOfCache
from engine.kernels.native import library
from engine.kernels.native.cache import AREA, area_bytes
from engine.kernels.native.limits import obstacle

GIB = 1024**3

# Of the KV cache, on a CPU: pages beyond are touched only where live sequences need them. Zeroing
# them was 4% of the time of short runs, and most would only hold what nobody asks for again.
_WARM_BYTES = GIB // 2


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model is computed with on this machine.

    Attributes:
        device, dtype: where weights and activations live, and the type of what is not quantized.
        quantization: ``none``, ``int8`` or ``int4``.
        cache_dtype: of keys and values.
        threads: CPU threads.
        native: whether the kernels in C run it.
        reasons: of what the configuration left open, each like "cpu, as there is no other".
    """

    device: torch.device
    dtype: torch.dtype
    quantization: str
    cache_dtype: torch.dtype
    threads: int
    native: bool
    reasons: tuple[str, ...] = ()


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


def choose(config: EngineConfig, model: ModelConfig) -> Choice:
    """Choose for this machine what the configuration leaves open.

    Raises:
        InvalidConfig: the configuration asks for what this machine cannot do.
    """
    device = pick_device(config)
    dtype = pick_dtype(config, device)
    reasons = []
    if config.device == "auto":
        sees = "sees a" if device.type == "cuda" else "sees no"
        reasons.append(f"{device.type}, as torch {sees} CUDA device")
    if config.dtype == "auto":
        reasons.append(_why_dtype(dtype, device))
    remark = ""
    if device.type == "cpu":
        remark = obstacle(model, config.block_size, dtype) or ""
        if not remark and not library.available():
            remark = "the kernels in C could not be built"
    if remark:
        reasons.append(f"PyTorch's kernels, as {remark}")
    native = device.type == "cpu" and not remark
    quantization = config.quantization
    if quantization == "auto":
        quantization = "int8" if native and config.dtype == "auto" else "none"
        if quantization == "int8":
            reasons.append("int8, as it is the fastest within 1% of bfloat16's perplexity")
        elif native:
            reasons.append("no quantization, as a dtype was asked for")
    if quantization != "none" and device.type != "cpu":
        raise InvalidConfig(
            f"quantization {quantization} runs on CPUs only; leave it out on a GPU."
        )
    group = config.group_size or 32
    widths = (model.hidden_size, model.num_heads * model.head_dim, model.intermediate_size)
    if quantization == "int4" and group > 0 and any(width % group for width in widths):
        raise InvalidConfig(f"The model's widths, {widths}, do not divide into groups of {group}.")
    cache_dtype = _cache_dtype(config, dtype, quantized=quantization != "none", native=native)
    threads = config.threads or len(os.sched_getaffinity(0))
    if config.threads is None:
        reasons.append(f"{threads} threads, all that this process may use")
    return Choice(device, dtype, quantization, cache_dtype, threads, native, tuple(reasons))


def _why_dtype(dtype: torch.dtype, device: torch.device) -> str:
    name, where = str(dtype).removeprefix("torch."), "GPU" if device.type == "cuda" else "processor"
    if dtype == torch.bfloat16:
        return f"{name}, as the {where} multiplies it"
    return f"{name}, as the {where} does not multiply bfloat16"


def _cache_dtype(
    config: EngineConfig, dtype: torch.dtype, *, quantized: bool, native: bool
) -> torch.dtype:
    if config.kv_cache_dtype == "auto":
        return torch.int8 if quantized and native else dtype
    named: torch.dtype = getattr(torch, config.kv_cache_dtype)
    served = (torch.float32, torch.bfloat16, torch.int8) if native else (dtype,)
    if named not in served:
        known = ", ".join(str(each).removeprefix("torch.") for each in served)
        raise InvalidConfig(f"A cache of {config.kv_cache_dtype} is not served here; {known} is.")
    return named


def pick_device(config: EngineConfig) -> torch.device:
    """The configured device; ``auto`` is CUDA where there is one.

    Raises:
        InvalidConfig: the device is unknown, or CUDA is asked for and absent.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(config.device)
    except RuntimeError as error:
        raise InvalidConfig(f"Unknown device {config.device!r}: use auto, cpu or cuda.") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidConfig(f"Device {config.device!r} is not served: use auto, cpu or cuda.")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InvalidConfig("device is cuda, but torch sees no CUDA device on this machine.")
    return device


def pick_dtype(config: EngineConfig, device: torch.device) -> torch.dtype:
    """The configured dtype; ``auto`` is bfloat16 where the device multiplies it natively."""
    if config.dtype != "auto":
        named: torch.dtype = getattr(torch, config.dtype)
        return named
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return torch.bfloat16 if _cpu_has_bf16() else torch.float32


def place(config: EngineConfig, model: ModelConfig, choice: Choice) -> Placement:
    """Fill in every bound that the configuration leaves open, with the weights loaded.

    Raises:
        OutOfCache: the KV cache cannot hold even one block.
    """
    on_gpu = choice.device.type == "cuda"
    max_num_seqs = config.max_num_seqs or (1024 if on_gpu else 128)
    max_batch_tokens = config.max_batch_tokens or (8192 if on_gpu else 1024)
    context = min(config.max_model_len or model.max_position, model.max_position)
    block_bytes = _block_bytes(config, model, choice)
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


def _block_bytes(config: EngineConfig, model: ModelConfig, choice: Choice) -> int:
    if not choice.native:
        return config.block_size * model.kv_bytes_per_token(choice.cache_dtype.itemsize)
    areas = config.block_size // AREA
    head = area_bytes(model.head_dim, choice.cache_dtype)
    return model.num_layers * areas * model.num_kv_heads * head


def _cache_budget(device: torch.device) -> tuple[int, str]:
    """Bytes, and why."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return int(free * 0.85), f"a cache of 85% of the {free / GIB:.1f} GiB free on the GPU"
    free = available_memory()
    most = 16 * GIB
    if free // 4 > most:
        return most, f"a cache of {most // GIB} GiB at most, of {free / GIB:.1f} GiB free"
    return free // 4, f"a cache of at most a quarter of the {free / GIB:.1f} GiB free"


def available_memory() -> int:
    """Bytes of memory this process may still take: the machine's or its control group's."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if sys.platform == "linux" and meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (text := limit.read_text().strip()) != "max":
        free = min(free, int(text) - int(used.read_text()))
    return max(free, 0)


def give_back_memory() -> None:
    """Return to the system what loading has left free in this process: 190 MB of SmolLM2's."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
    if trim is not None:
        trim(0)


def _cpu_has_bf16() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return False
    flags = next((x for x in cpuinfo.read_text().splitlines() if x.startswith("flags")), "")
    return "avx512_bf16" in flags or "amx_bf16" in flags
