"""What a model is computed with on this machine, and why, where the configuration leaves it
open."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from engine.config import STAND_IN, EngineConfig, ModelConfig, Quantization
from engine.errors import InvalidConfig
from engine.executors.machine import cpu_count, has_bfloat16
from engine.kernels.backend import Backend, Service
from engine.kernels.native.backend import NativeBackend
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.reference.stand_in import StandInBackend
from engine.kernels.triton.backend import TritonBackend

DEFAULT_GROUP = 32  # inputs that share a scale in int4
WHOLE_CHANNEL = -1  # as a group size

_CACHE_DTYPES = {"fp8": torch.float8_e4m3fn}


@dataclass(frozen=True, slots=True)
class Choice:
    """What a model is computed with on this machine.

    Attributes:
        device, dtype: where weights and activations live, and the type of what is not quantized.
        backend: whose kernels compute it.
        quantization: ``none``, ``int8`` or ``int4``.
        cache_dtype: of keys and values.
        threads: CPU threads.
        reasons: of what the configuration left open, each like "cpu, as there is no other".
    """

    device: torch.device
    dtype: torch.dtype
    backend: Backend
    quantization: Quantization
    cache_dtype: torch.dtype
    threads: int
    reasons: tuple[str, ...] = ()


def choose(config: EngineConfig, model: ModelConfig) -> Choice:
    """Choose for this machine what the configuration leaves open.

    Raises:
        InvalidConfig: the configuration asks for what this machine cannot do.
    """
    device = pick_device(config)
    dtype = pick_dtype(config, device)
    threads = config.threads or cpu_count()
    reasons = []
    if config.device == "auto":
        sees = "sees a" if device.type == "cuda" else "sees no"
        reasons.append(f"{device.type}, as torch {sees} CUDA device")
    if config.dtype == "auto":
        reasons.append(_why_dtype(dtype, device))
    offered: tuple[Backend, ...] = (StandInBackend(),)
    if config.device != STAND_IN:
        on_gpu = device.type == "cuda"
        offered = backends(threads, torch.cuda.get_device_capability(device) if on_gpu else None)
    chosen = choose_kernels(config, model, device, dtype, offered)
    reasons += chosen.reasons
    if config.threads is None:
        reasons.append(f"{threads} threads, all that this process may use")
    return Choice(
        device,
        dtype,
        chosen.backend,
        chosen.quantization,
        chosen.cache_dtype,
        threads,
        tuple(reasons),
    )


def backends(threads: int, capability: tuple[int, int] | None = None) -> tuple[Backend, ...]:
    """Every backend, the fastest first; the last one runs anything.

    Args:
        threads: CPU threads.
        capability: of the GPU; ``None`` where there is none.
    """
    return NativeBackend(threads), TritonBackend(capability), ReferenceBackend()


@dataclass(frozen=True, slots=True)
class Kernels:
    """A backend, and what of its service is used; see `Choice`."""

    backend: Backend
    quantization: Quantization
    cache_dtype: torch.dtype
    reasons: tuple[str, ...]


def choose_kernels(
    config: EngineConfig,
    model: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    offered: Sequence[Backend],
) -> Kernels:
    """Choose for a device, whether or not this machine has it.

    Args:
        config: what is asked for.
        model: what is computed.
        device, dtype: where, and in what.
        offered: as from `backends`.

    Raises:
        InvalidConfig: the configuration asks for what the chosen backend does not serve, or for
            groups that do not divide the model's widths.
    """
    backend, obstacle = _first_able(config, model, device, dtype, offered)
    reasons = [] if obstacle is None else [f"{backend.title}, as {obstacle}"]
    service = backend.service(device, dtype)
    quantization = config.quantization
    if quantization == "auto":
        quantization, reason = _pick_quantization(config, service)
        reasons += [reason] if reason else []
    if quantization not in service.quantizations:
        known = ", ".join(service.quantizations)
        raise InvalidConfig(
            f"quantization {quantization} is not served on {device.type} by {backend.title}: "
            f"use {known}."
        )
    if quantization == "int4":
        _check_groups(config, model)
    cache_dtype = _pick_cache_dtype(config, dtype, service, quantized=quantization != "none")
    return Kernels(backend, quantization, cache_dtype, tuple(reasons))


def _first_able(
    config: EngineConfig,
    model: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    offered: Sequence[Backend],
) -> tuple[Backend, str | None]:
    """The first backend that can run the model, and why the first one for the device is not it."""
    reason: str | None = None
    for backend in offered:
        if backend.device_types and device.type not in backend.device_types:
            continue
        obstacle = backend.obstacle(model, config.block_size, dtype)
        if obstacle is None:
            return backend, reason
        reason = reason or obstacle
    raise InvalidConfig(
        f"No kernels run this model on {device.type}: {reason or 'there are none for it'}."
    )


def _pick_quantization(config: EngineConfig, service: Service) -> tuple[Quantization, str]:
    if service.preferred == "none":
        return "none", ""
    if config.dtype == "auto":
        return service.preferred, f"{service.preferred}, {service.reason}"
    return "none", "no quantization, as a dtype was asked for"


def _check_groups(config: EngineConfig, model: ModelConfig) -> None:
    group = config.group_size or DEFAULT_GROUP
    widths = (model.hidden_size, model.num_heads * model.head_dim, model.intermediate_size)
    if group != WHOLE_CHANNEL and any(width % group for width in widths):
        raise InvalidConfig(f"The model's widths, {widths}, do not divide into groups of {group}.")


def _pick_cache_dtype(
    config: EngineConfig, dtype: torch.dtype, service: Service, *, quantized: bool
) -> torch.dtype:
    if config.kv_cache_dtype == "auto":
        pays = quantized and service.int8_cache_pays and torch.int8 in service.cache_dtypes
        return torch.int8 if pays else dtype
    named: torch.dtype = _CACHE_DTYPES.get(config.kv_cache_dtype) or getattr(
        torch, config.kv_cache_dtype
    )
    if named not in service.cache_dtypes:
        known = ", ".join(str(each).removeprefix("torch.") for each in service.cache_dtypes)
        raise InvalidConfig(f"A cache of {config.kv_cache_dtype} is not served here; {known} is.")
    return named


def pick_device(config: EngineConfig) -> torch.device:
    """The configured device; ``auto`` is CUDA where there is one.

    Raises:
        InvalidConfig: the device is unknown, or CUDA is asked for and absent.
    """
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if config.device == STAND_IN:
        return torch.device("cpu")
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
    if has_bfloat16(device):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


def _why_dtype(dtype: torch.dtype, device: torch.device) -> str:
    name, where = str(dtype).removeprefix("torch."), "GPU" if device.type == "cuda" else "processor"
    if dtype == torch.bfloat16:
        return f"{name}, as the {where} multiplies it"
    return f"{name}, as the {where} does not multiply bfloat16"
