"""Tokenizers stay loaded between jobs, and no longer than their files stay the same."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

from worker.models.loaded_texts import MOST_LOADED, LoadedTextModels, fingerprint_of
from worker.models.tokenizers import TextModel, TextTokenizer


class Loads:
    """Counts what was loaded; every load gives an object of its own."""

    def __init__(self) -> None:
        self.sources: list[str] = []

    def __call__(self, name: str, source: str) -> TextModel:
        self.sources.append(source)
        return TextModel(name, cast(TextTokenizer, object()), 64, 100)  # nobody asks it


def _model(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_model_is_loaded_once(tmp_path: Path) -> None:
    source, loads = str(_model(tmp_path / "m")), Loads()
    models = LoadedTextModels(loads)
    assert models("a", source) is models("a", source)
    assert models("b", source) is not models("a", source), "each has its own name"
    assert loads.sources == [source, source]


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    folder, loads = _model(tmp_path / "m"), Loads()
    models = LoadedTextModels(loads)
    changes: list[Callable[[], object]] = [
        lambda: (folder / "tokenizer.json").write_text("{ }"),
        lambda: os.utime(folder / "config.json", (1, 1)),
        lambda: (folder / "chat_template.jinja").write_text("x"),
        lambda: (folder / "chat_template.jinja").unlink(),
    ]
    before = models("a", str(folder))
    for change in changes:
        change()
        now = models("a", str(folder))
        assert now is not before
        assert models("a", str(folder)) is now
        before = now


def test_the_last_few_stay(tmp_path: Path) -> None:
    sources = [str(_model(tmp_path / f"m{i}")) for i in range(MOST_LOADED + 1)]
    loads = Loads()
    models = LoadedTextModels(loads)
    for source in sources:
        models("a", source)
    models("a", sources[-1])
    assert len(loads.sources) == MOST_LOADED + 1
    models("a", sources[0])
    assert len(loads.sources) == MOST_LOADED + 2


def test_a_gguf_file_is_told_by_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"x")
    before = fingerprint_of(str(path))
    (tmp_path / "other.gguf").write_bytes(b"y")
    assert fingerprint_of(str(path)) == before
    path.write_bytes(b"xx")
    assert fingerprint_of(str(path)) != before
