"""Which launches of which kernels are to be compiled for which cards."""

import hashlib
import importlib
import importlib.util
import json
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton

from compiling.outcome import SHARED_BYTES, Compiled
from engine.kernels import triton as shipped
from engine.kernels.triton.launch import Launch

_FORM = 1  # of what is kept


@dataclass(frozen=True, slots=True)
class Job:
    """A launch to be compiled for a card, and the key under which its outcome is kept."""

    package: str
    capability: int
    launch: Launch
    key: str

    def outcome(self, **found: Any) -> Compiled:
        """Of this job, with what was found."""
        return Compiled(
            package=self.package,
            kernel=self.launch.kernel.__name__,
            capability=self.capability,
            arguments=", ".join(_types(self.launch)),
            constants=", ".join(f"{name}={value}" for name, value in _constants(self.launch)),
            **found,
        )


def packages() -> list[ModuleType]:
    """The module of each package in `engine.kernels.triton` that says what it ships."""
    names = [info.name for info in pkgutil.iter_modules(shipped.__path__) if info.ispkg]
    return [importlib.import_module(f"{shipped.__name__}.{name}.shipped") for name in names]


def package_of(module: ModuleType) -> str:
    """The name of the package that a module speaks for."""
    return module.__name__.removesuffix(".shipped").rsplit(".", 1)[-1]


def module_at(path: str) -> ModuleType:
    """A module that is in no package."""
    name = Path(path).stem
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def jobs(modules: Iterable[ModuleType], cards: Iterable[int] = SHARED_BYTES) -> Iterator[Job]:
    """The distinct launches of some cards, each told by its compute capability."""
    cards = tuple(cards)
    seen = set()
    for module in modules:
        package = package_of(module)
        for capability in cards:
            for launch in module.shipped_launches(divmod(capability, 10)):
                key = _key(launch, capability)
                if key not in seen:
                    seen.add(key)
                    yield Job(package, capability, launch, key)


def sample(all_jobs: Iterable[Job]) -> list[Job]:
    """Of each kernel and card the launch with the largest constants, on the newest card of each
    type of arguments.

    Large tiles are those that spill and that do not fit into shared memory.
    """
    picked: dict[tuple[object, ...], Job] = {}
    newest = max(SHARED_BYTES)
    for job in all_jobs:
        types = _types(job.launch) if job.capability == newest else ()
        kind = (job.package, job.launch.kernel.__name__, job.capability, *types)
        if kind not in picked or _size(job) > _size(picked[kind]):
            picked[kind] = job
    return list(picked.values())


def _size(job: Job) -> int:
    constants = [value for _, value in _constants(job.launch)]
    return prod(value for value in constants if isinstance(value, int) and value > 0)


def _types(launch: Launch) -> list[str]:
    return [
        str(argument.dtype).removeprefix("torch.")
        if isinstance(argument, torch.Tensor)
        else type(argument).__name__
        for argument in launch.arguments
    ]


def _constants(launch: Launch) -> list[tuple[str, Any]]:
    named = zip(launch.kernel.params, launch.arguments, strict=False)
    positional = {param.name: value for param, value in named if param.is_constexpr}
    return sorted((positional | launch.constants).items())


def _key(launch: Launch, capability: int) -> str:
    """A checksum of all that decides a launch's code: source, types, divisibility, constants."""
    parameters = {param.name: param for param in launch.kernel.params}
    named = zip(launch.kernel.params, launch.arguments, strict=False)
    given = [(param, value) for param, value in named if not param.is_constexpr]
    given += [
        (parameters[name], value)
        for name, value in launch.constants.items()
        if name in parameters and not parameters[name].is_constexpr
    ]
    what = [
        _FORM,
        triton.__version__,
        capability,
        launch.kernel.__name__,
        launch.kernel.cache_key,
        [(param.name, _specialization(param, value)) for param, value in given],
        [(name, _constant(value)) for name, value in _constants(launch)],
    ]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()


def _specialization(param: Any, value: Any) -> str:
    """What Triton's code depends on of an argument that is no constant."""
    if isinstance(value, torch.Tensor):
        aligned = value.storage_offset() * value.itemsize % 16 == 0
        return f"{value.dtype}{' aligned' if aligned else ''}"
    if hasattr(value, "block_shape"):  # a tensor descriptor
        return f"{value.base.dtype}{list(value.block_shape)}"
    if isinstance(value, int) and not isinstance(value, bool):
        width = "i32" if -(2**31) <= value < 2**31 else "i64"
        if param.do_not_specialize:
            return width
        return "1" if value == 1 else f"{width}{' divisible' if value % 16 == 0 else ''}"
    return type(value).__name__


def _constant(value: Any) -> str:
    return str(getattr(value, "cache_key", value))
