"""A throughput-first inference engine. Knows nothing of jobs, HTTP, SQL or queues.

>>> from engine import LLM, SamplingParams
>>> LLM("smollm2").generate("The capital of France is", SamplingParams(temperature=0))

Names are imported when first used: a planner counts tokens without torch, and a command starts an
engine's process before it has imported anything itself.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.config import EngineConfig
    from engine.errors import EngineError
    from engine.llm import LLM
    from engine.params import SamplingParams
    from engine.process.client import EngineProcess
    from engine.requests import Completion, Output, Request

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

_WHERE = {
    "LLM": "engine.llm",
    "Completion": "engine.requests",
    "EngineConfig": "engine.config",
    "EngineError": "engine.errors",
    "EngineProcess": "engine.process.client",
    "Output": "engine.requests",
    "Request": "engine.requests",
    "SamplingParams": "engine.params",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    try:
        return getattr(import_module(_WHERE[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        from engine.errors import EngineMissing

        raise EngineMissing from error
