"""A throughput-first inference engine. Knows nothing of jobs, HTTP, SQL or queues.

>>> from engine import LLM, SamplingParams
>>> LLM("smollm2").generate("The capital of France is", SamplingParams(temperature=0))

Names that need torch are imported when first used, so that a planner can count tokens without it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from engine.config import EngineConfig
from engine.errors import EngineError, EngineMissing
from engine.params import SamplingParams
from engine.requests import Completion, Output, Request

if TYPE_CHECKING:
    from engine.llm import LLM
    from engine.process import EngineProcess

__all__ = [
    "LLM",
    "Completion",
    "EngineConfig",
    "EngineError",
    "EngineProcess",
    "Output",
    "Request",
    "SamplingParams",
]

_LAZY = {"LLM": "engine.llm", "EngineProcess": "engine.process"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    try:
        return getattr(import_module(_LAZY[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise EngineMissing from error
