"""What the two sides say to each other, pickled over a private socket pair."""

from dataclasses import dataclass

from engine.info import EngineInfo
from engine.requests import Completion, EngineStats, Request


@dataclass(frozen=True, slots=True)
class Submit:
    """Run these."""

    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Cancel:
    """Stop these; each still comes back in a `Done`."""

    request_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Flush:
    """No more input comes soon."""


@dataclass(frozen=True, slots=True)
class Close:
    """End now."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The model is loaded."""

    info: EngineInfo


@dataclass(frozen=True, slots=True)
class Failed:
    """The model could not be loaded: the error's code (`engine.errors`) and message."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """Finished requests, maybe none, and the counters at that time."""

    completions: tuple[Completion, ...]
    stats: EngineStats


ToEngine = Submit | Cancel | Flush | Close
FromEngine = Ready | Failed | Done
