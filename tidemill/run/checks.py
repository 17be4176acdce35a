"""What is refused before anything is started: a model or options that no row could run with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tidemill.errors import UsageError

if TYPE_CHECKING:
    from storage.datasets.request_lines import RequestOptions
    from storage.settings import Settings


def check_options(request: "RequestOptions") -> None:
    """Refuse sampling options that every row would fail with.

    Raises:
        UsageError: naming the option.
    """
    from storage.endpoints import COMPLETIONS
    from worker.endpoints.registry import ENDPOINTS
    from worker.errors import BodyError

    prompt = (
        {"prompt": "Why?"}
        if request.endpoint == COMPLETIONS
        else {"messages": [{"role": "user", "content": "Why?"}]}
    )
    try:
        ENDPOINTS[request.endpoint].parse(prompt | dict(request.sampling))
    except BodyError as error:
        option = f"--{error.param.replace('_', '-')}: " if error.param else ""
        raise UsageError(f"{option}{error}") from error


@dataclass(frozen=True, slots=True)
class ModelNeeded:
    """What a plain input asks of a model.

    Attributes:
        name: what jobs call it; ``None`` is the default one.
        max_tokens: most tokens of an answer, where that is given.
    """

    name: str | None
    max_tokens: int | None


def check_model(settings: "Settings", needed: ModelNeeded) -> str:
    """Refuse a model that is not in the home folder, or whose files are not there.

    Returns:
        Where its files are, as the engine takes it.

    Raises:
        UsageError: there is no such model, its files cannot be used, or its context has no room
            for the answer.
    """
    from storage.database.connection import Database
    from storage.registry import models

    default = settings.worker.default_model
    sources = {default: default}
    url = settings.storage.resolved_database_url
    if not url.startswith("sqlite:///") or Path(url.removeprefix("sqlite:///")).exists():
        database = Database(url)
        try:
            sources |= {model.name: model.source for model in models.list_models(database)}
        finally:
            database.close()
    name = needed.name or default
    check_listed(name, list(sources))
    check_files(name, sources[name], needed.max_tokens)
    return sources[name]


def check_files(name: str, source: str, max_tokens: int | None) -> None:
    """Refuse a model whose files cannot be used, or whose context has no room for the answer.

    Raises:
        UsageError: why.
    """
    from engine.catalog import resolve
    from engine.errors import EngineError
    from engine.models.families import load_config

    try:
        config = load_config(resolve(source))
    except EngineError as error:
        raise UsageError(f"The model {name} cannot be used: {error}") from error
    if max_tokens is not None and max_tokens >= config.max_position:
        raise UsageError(
            f"--max-tokens: the context of {name} is {config.max_position:,} tokens, prompt and "
            f"answer together; {max_tokens:,} leaves no room for a prompt."
        )


def check_listed(name: str, known: Sequence[str]) -> None:
    """Raise `UsageError` for a model that nobody has added."""
    if name not in known:
        raise UsageError(
            f"There is no model {name!r}; there is {', '.join(sorted(known))}. "
            "'tidemill models add NAME PATH' adds one."
        )
