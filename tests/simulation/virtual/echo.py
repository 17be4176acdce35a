"""A stand-in for the engine: it answers each prompt with its own token ids, and dies of poison."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engine.errors import EngineDied
from engine.info import EngineInfo
from engine.requests import Completion, EngineStats, Output, Request
from simulation.virtual.points import Points
from simulation.virtual.scheduler import Scheduler
from worker.models.tokenizers import TextModel

POISON = 999  # a token that ends the engine
AT_ONCE = 4
_INFO = EngineInfo("echo", 64, 1_000, "cpu", "none", 1, 16, AT_ONCE, 64, 0.0)


class Echo:
    """A `worker.models.engines.Engine`. It lives in its worker's process and dies with it."""

    pid = None

    def __init__(self, scheduler: Scheduler, points: Points) -> None:
        self._scheduler = scheduler
        self._points = points
        self._waiting: list[Request] = []
        self.alive = False

    def start(self, timeout: float = 300.0) -> EngineInfo:
        self._scheduler.sleep(self._scheduler.random.uniform(0.5, 4.0))
        self.alive = True
        return _INFO

    def submit(self, requests: Sequence[Request]) -> None:
        self._waiting += requests

    def cancel(self, request_ids: Iterable[str]) -> None:
        gone = set(request_ids)
        self._waiting = [request for request in self._waiting if request.id not in gone]

    def flush(self) -> None:
        pass

    def poll(self, timeout: float) -> list[Completion]:
        batch = self._waiting[:AT_ONCE]
        if not batch:
            self._scheduler.sleep(max(timeout, 1.0))
            return []
        # One step may take longer than the caller would like to wait, as a long prefill does.
        self._scheduler.sleep(self._scheduler.random.choice((0.5, 3.0, 12.0)))
        if any(POISON in request.prompt for request in batch) or self._points.dice(
            self._points.faults.engine_death
        ):
            self.alive = False
            self._scheduler.note("engine died")
            raise EngineDied("The engine process was killed.", exit_code=-9, log_tail="")
        done = {request.id for request in batch}
        self._waiting = [request for request in self._waiting if request.id not in done]
        return [_echo(request) for request in batch]

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self, timeout: float = 10.0) -> None:
        self.alive = False


def echo(tokens: Sequence[int]) -> str:
    """The text of the answer to a prompt."""
    return " ".join(map(str, tokens))


def _echo(request: Request) -> Completion:
    output = Output(0, request.prompt[:2], echo(request.prompt), "stop")
    return Completion(request.id, request.prompt, (output,), cached_tokens=1)


class NoTokenizer:
    """Prompts here are token ids already."""

    fill_tokens = None

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        raise NotImplementedError

    def text_of(self, ids: Sequence[int]) -> str:
        raise NotImplementedError

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> str:
        raise NotImplementedError


def text_model(name: str, source: str) -> TextModel:
    """What the planner needs to know of the stand-in."""
    return TextModel(name, NoTokenizer(), context_length=64, vocab_size=1_000)
