"""A model's files → its tokenizer."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tokenizers

from engine.catalog import ModelFiles
from engine.errors import EngineError, FilesUnreadable, TokenizerError
from engine.gguf import GGUFFile
from engine.tokenizer.chat import DEFAULT
from engine.tokenizer.from_gguf import chat_templates, end_tokens, rebuild, special_tokens
from engine.tokenizer.tokenizer import Tokenizer

# Tokens that have no role of their own; transformers 4 and 5 name the list differently.
_UNNAMED = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def load_tokenizer(files: ModelFiles, *, control_tokens_in_messages: bool = False) -> Tokenizer:
    """The tokenizer of a model.

    A Hugging Face folder must hold ``tokenizer.json``; ``tokenizer_config.json``,
    ``special_tokens_map.json``, ``chat_template.jinja`` and ``additional_chat_templates/`` are
    read where they are. From a GGUF file the tokenizer is rebuilt.

    Args:
        files: the model's.
        control_tokens_in_messages: see `Tokenizer`.

    Raises:
        TokenizerError: a file is missing or damaged, or its kind of tokenizer is not known.
        CheckpointError: the GGUF file cannot be read.
        FilesUnreadable: the system does not let a file be read.
    """
    try:
        if files.gguf is None:
            return _from_folder(files.folder, control_tokens_in_messages)
        return _from_gguf(files.gguf, control_tokens_in_messages)
    except (EngineError, MemoryError):
        raise
    except OSError as problem:
        raise FilesUnreadable.of(problem.filename or files.folder, problem) from problem
    except BaseException as problem:  # whatever a value that nobody expects leads to
        if not (isinstance(problem, Exception) or _is_panic(problem)):
            raise
        raise TokenizerError(
            f"The tokenizer of {files.gguf or files.folder} cannot be used: {problem}"
        ) from problem


def _is_panic(problem: BaseException) -> bool:
    """Whether the library gave up. Its class has no name to import, and is no `Exception`."""
    return type(problem).__name__ == "PanicException"


def _from_gguf(path: Path, control_tokens_in_messages: bool) -> Tokenizer:
    with GGUFFile(path) as gguf:
        metadata = gguf.metadata
        return Tokenizer(
            rebuild(metadata),
            special_tokens=special_tokens(metadata),
            chat_templates=chat_templates(metadata),
            end_tokens=end_tokens(metadata),
            control_tokens_in_messages=control_tokens_in_messages,
        )


def _from_folder(folder: Path, control_tokens_in_messages: bool) -> Tokenizer:
    path = folder / "tokenizer.json"
    text = _read_text(path)
    if text is None:
        raise TokenizerError(
            f"{folder} has no tokenizer.json. Older checkpoints hold only a SentencePiece or "
            "vocabulary file; loading and saving their tokenizer with transformers writes one."
        )
    try:
        backend = tokenizers.Tokenizer.from_str(text)
    except Exception as problem:  # the library raises nothing more precise
        raise TokenizerError(f"{path} cannot be read: {problem}") from problem
    config = _read_object(folder / "tokenizer_config.json")
    named = _read_object(folder / "special_tokens_map.json")
    tokens = dict(_named_tokens(named)) | dict(_named_tokens(config))
    _add_listed(backend, config.get("added_tokens_decoder"))
    _make_special(backend, [*tokens.values(), *_unnamed_tokens(named), *_unnamed_tokens(config)])
    return Tokenizer(
        backend,
        special_tokens=tokens,
        chat_templates=_templates(folder, config),
        control_tokens_in_messages=control_tokens_in_messages,
    )


def _add_listed(backend: tokenizers.Tokenizer, listed: object) -> None:
    """Add the tokens that only ``tokenizer_config.json`` lists, under the ids that it gives them.

    One that cannot have its id is left out: as another token it would mean something else.
    """
    if not isinstance(listed, dict):
        return
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    by_id = {int(key): token for key, token in listed.items() if key.isdecimal()}
    for token_id, token in sorted(by_id.items()):
        text = _text_of(token)
        if not text or text in added:
            continue
        found = backend.token_to_id(text)
        next_id = backend.get_vocab_size(with_added_tokens=True)
        if token_id != (next_id if found is None else found):
            continue
        flags = token.items() if isinstance(token, dict) else ()
        marked = {name: value for name, value in flags if name in _FLAGS and value is not None}
        new = tokenizers.AddedToken(text, **marked)
        (backend.add_special_tokens if new.special else backend.add_tokens)([new])


def _make_special(backend: tokenizers.Tokenizer, tokens: Iterable[str]) -> None:
    """Mark tokens that ``tokenizer.json`` does not mark itself.

    One that is not in the vocabulary is left out: adding it would widen the vocabulary beyond the
    model's.
    """
    added = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    for text in tokens:
        token = added.get(text) or tokenizers.AddedToken(text, normalized=False)
        if not token.special and backend.token_to_id(text) is not None:
            token.special = True
            backend.add_special_tokens([token])


def _named_tokens(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Pairs such as ``("eos_token", "</s>")``; a token is written as a string or an object."""
    for name, value in config.items():
        token = _text_of(value)
        if name.endswith("_token") and token is not None:
            yield name, token


def _unnamed_tokens(config: Mapping[str, Any]) -> Iterator[str]:
    for name in _UNNAMED:
        listed = config.get(name)
        entries = list(listed.values()) if isinstance(listed, dict) else listed
        yield from filter(None, map(_text_of, entries if isinstance(entries, list) else ()))


def _text_of(token: Any) -> str | None:
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Name → source. Template files win over ``tokenizer_config.json``, as in transformers."""
    files = {DEFAULT: folder / "chat_template.jinja"} | {
        path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))
    }
    texts = {name: _read_text(path) for name, path in files.items()}
    if found := {name: text for name, text in texts.items() if text is not None}:
        return found
    stored = config.get("chat_template")
    if isinstance(stored, str):
        return {DEFAULT: stored}
    try:
        return {str(entry["name"]): str(entry["template"]) for entry in stored or ()}
    except (TypeError, LookupError) as problem:
        raise TokenizerError(
            f"chat_template in {folder / 'tokenizer_config.json'} is neither a template nor a list "
            "of named ones."
        ) from problem


def _read_object(path: Path) -> dict[str, Any]:
    """A JSON file's object; empty where there is no file."""
    text = _read_text(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise TokenizerError(f"{path} is not valid JSON.") from problem
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} holds no JSON object.")
    return value


def _read_text(path: Path) -> str | None:
    """A file's text, ``None`` where there is no file. What may pass is not a missing one."""
    try:
        return path.read_text("utf-8")
    except (FileNotFoundError, IsADirectoryError):
        return None
    except UnicodeDecodeError as problem:
        raise TokenizerError(f"{path} cannot be read: it is not UTF-8.") from problem
    except OSError as problem:
        raise FilesUnreadable.of(path, problem) from problem
