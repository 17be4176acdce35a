"""What the planner needs of a model: its tokenizer and its limits. Nothing here imports torch."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from engine.errors import EngineError
from worker.errors import ModelUnavailable
from worker.models.faults import model_error

log = structlog.get_logger(__name__)


class FillTokens(Protocol):
    """What planning uses of `engine.tokenizer.fill.FillTokens`."""

    @property
    def ends(self) -> tuple[int, ...]: ...

    @property
    def mark(self) -> str: ...

    def arrange(self, before: Sequence[int], after: Sequence[int]) -> list[int]: ...


class TextTokenizer(Protocol):
    """What planning uses of `engine.tokenizer.Tokenizer`."""

    @property
    def fill_tokens(self) -> FillTokens | None: ...

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]: ...

    def text_of(self, ids: Sequence[int]) -> str: ...

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class TextModel:
    """A model as the planner sees it. ``context_length`` counts tokens of prompt and output."""

    name: str
    tokenizer: TextTokenizer
    context_length: int
    vocab_size: int


def load_text_model(
    name: str, source: str, *, with_control_tokens: Container[str] = ()
) -> TextModel:
    """Check the model at ``source``, and load its tokenizer and limits.

    ``with_control_tokens`` are the models whose messages may hold control tokens.

    Raises:
        EngineError: it cannot be loaded; as `check_model`.
    """
    from engine.models.check import check_model

    found = check_model(source, control_tokens_in_messages=name in with_control_tokens)
    return TextModel(name, found.tokenizer, found.config.max_position, found.config.vocab_size)


class TextModels:
    """The models of one job's plan; each is loaded, or found to be unusable, at its first use.

    Args:
        sources: every model's name → where it is.
        load: loads one, given both.
        patient: whether a model that may come is waited for, and not given up.
    """

    def __init__(
        self,
        sources: Mapping[str, str],
        load: Callable[[str, str], TextModel] = load_text_model,
        *,
        patient: bool = True,
    ) -> None:
        self._sources = sources
        self._load = load
        self._patient = patient
        self._loaded: dict[str, TextModel | ModelUnavailable] = {}

    def get(self, name: str) -> TextModel:
        """The model called ``name``, which must be one of the sources.

        Raises:
            ModelUnavailable: it cannot be loaded.
            ModelNotReady: it cannot be loaded now, and is waited for.
        """
        if name not in self._loaded:
            self._loaded[name] = self._try(name)
        model = self._loaded[name]
        if isinstance(model, ModelUnavailable):
            raise model
        return model

    def _try(self, name: str) -> TextModel | ModelUnavailable:
        source = self._sources[name]
        try:
            return self._load(name, source)
        except EngineError as error:
            log.error("model_not_loaded", model=name, code=error.code, reason=str(error))
            found = model_error(name, source, error)
        if isinstance(found, ModelUnavailable):
            return found
        if self._patient:
            raise found
        return ModelUnavailable(str(found))
