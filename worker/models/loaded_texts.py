"""Tokenizers that stay loaded between jobs: loading one takes far longer than planning a tiny job.

One is loaded anew when a file that it was made from has changed.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path

from worker.models.tokenizers import TextModel, load_text_model

MOST_LOADED = 4

Fingerprint = tuple[tuple[str, int, int], ...]


class LoadedTextModels:
    """Loads as `load_text_model` does, and keeps the last few. For any number of threads."""

    def __init__(
        self,
        load: Callable[[str, str], TextModel] = load_text_model,
        fingerprint: "Callable[[str], Fingerprint] | None" = None,
    ) -> None:
        """``fingerprint`` says of a source whether it is still the same."""
        self._load = load
        self._fingerprint = fingerprint or fingerprint_of
        self._lock = threading.Lock()
        self._loaded: OrderedDict[tuple[str, str], tuple[Fingerprint, TextModel]] = OrderedDict()

    def __call__(self, name: str, source: str) -> TextModel:
        """The model of this name.

        Raises:
            EngineError: as `load_text_model`.
        """
        now = self._fingerprint(source)
        # Held while one is loaded: two threads that need the same one load it once.
        with self._lock:
            known = self._loaded.get((name, source))
            model = known[1] if known and known[0] == now else self._load(name, source)
            self._loaded[name, source] = now, model
            self._loaded.move_to_end((name, source))
            while len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)
        return model


def fingerprint_of(source: str) -> Fingerprint:
    """The files of a model's source, each with its time and size.

    Raises:
        EngineError: there is no such model.
    """
    from engine.catalog import resolve

    files = resolve(source)
    if files.gguf is not None:
        return tuple(_stats([files.gguf]))
    return tuple(_stats(sorted(files.folder.glob("*")) + sorted(files.folder.glob("*/*.jinja"))))


def _stats(paths: Iterable[Path]) -> Iterable[tuple[str, int, int]]:
    for path in paths:
        try:
            found = path.stat()
        except OSError:  # it is just being replaced
            continue
        yield str(path), found.st_mtime_ns, found.st_size
