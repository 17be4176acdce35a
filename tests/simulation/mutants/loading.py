"""Imports a mutant in place of the product.

`apply` makes the next import of a module read its changed source, so it has to be called before the
product is imported.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from simulation.mutants.edits import Edit, Mutant, mutate


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module from its changed source; no bytecode is read or written."""

    def __init__(self, name: str, path: Path, edits: Sequence[Edit]) -> None:
        super().__init__(name, str(path))
        source = path.read_text()
        for edit in edits:
            source = mutate(source, edit)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, loaders: dict[str, _Loader]) -> None:
        self._loaders = loaders

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        loader = self._loaders.get(fullname)
        if loader is None:
            return None
        return importlib.util.spec_from_file_location(fullname, loader.path, loader=loader)


def apply(mutant: Mutant) -> None:
    """Let this process import the changed modules from now on.

    Raises:
        MutantOutdated: the source has changed under the mutant.
        RuntimeError: a module of the product was imported already.
    """
    early = [name for name in sys.modules if name.partition(".")[0] in ("storage", "worker")]
    if early:
        raise RuntimeError(f"imported before the mutant was applied: {sorted(early)[:3]}")
    modules = dict.fromkeys(edit.module for edit in mutant.edits)
    loaders = {
        module: _Loader(
            module,
            next(edit.path for edit in mutant.edits if edit.module == module),
            [edit for edit in mutant.edits if edit.module == module],
        )
        for module in modules
    }
    sys.meta_path.insert(0, _Finder(loaders))
