"""What the planner needs of a model: its tokenizer and its limits. Nothing here imports torch."""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from engine.errors import EngineError
from worker.errors import ModelUnavailable

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
    """Load the tokenizer and limits of the model at ``source``.

    ``with_control_tokens`` are the models whose messages may hold control tokens.

    Raises:
        EngineError: there is no such model, or it cannot be read; the message says what to do.
    """
    from engine.catalog import resolve
    from engine.models.families import load_config
    from engine.tokenizer import load_tokenizer

    files = resolve(source)
    config = load_config(files)
    tokenizer = load_tokenizer(files, control_tokens_in_messages=name in with_control_tokens)
    return TextModel(name, tokenizer, config.max_position, config.vocab_size)


class TextModels:
    """The models of one job's plan; each is loaded, or found to be unusable, at its first use."""

    def __init__(
        self,
        sources: Mapping[str, str],
        load: Callable[[str, str], TextModel] = load_text_model,
    ) -> None:
        self._sources = sources
        self._load = load
        self._loaded: dict[str, TextModel | None] = {}

    def get(self, name: str) -> TextModel:
        """The model called ``name``, which must be one of the sources.

        Raises:
            ModelUnavailable: it cannot be loaded.
        """
        if name not in self._loaded:
            self._loaded[name] = self._try(name)
        model = self._loaded[name]
        if model is None:
            raise ModelUnavailable(f"The model '{name}' cannot be loaded at the moment.")
        return model

    def _try(self, name: str) -> TextModel | None:
        try:
            return self._load(name, self._sources[name])
        except EngineError as error:
            log.error("model_not_loaded", model=name, code=error.code, reason=str(error))
            return None
