"""Real text without a download: the docstrings of Python's standard library."""

import importlib
import pkgutil
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

SKIPPED = ("antigravity", "this", "idlelib", "lib2to3", "test", "turtledemo", "__main__")


def docstrings() -> Iterator[str]:
    """Every docstring of the standard library's modules, their classes and functions, once."""
    seen: set[str] = set()
    for info in pkgutil.iter_modules():
        if info.name not in sys.stdlib_module_names or info.name in SKIPPED:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                module = importlib.import_module(info.name)
        except ImportError:  # some are for other systems
            continue
        for text in _texts(module):
            if text not in seen:
                seen.add(text)
                yield text


def _texts(module: ModuleType) -> Iterator[str]:
    things = [module, *(value for _, value in sorted(vars(module).items(), key=lambda kv: kv[0]))]
    for thing in things:
        text = vars(thing).get("__doc__") if isinstance(thing, type) else None
        text = text or (thing.__doc__ if isinstance(thing, ModuleType) or callable(thing) else None)
        if isinstance(text, str):
            yield text
