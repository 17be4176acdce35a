"""What a seeded bug is: changes to the product's source, each of a text that is there once."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]


class MutantOutdated(Exception):
    """The text that a mutant replaces is not in the source exactly once; adapt the mutant."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in one module."""

    module: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """The module's source file."""
        return ROOT / Path(*self.module.split(".")).with_suffix(".py")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A named bug. ``caught_by`` are the invariants that may show it; any other is a mistake."""

    name: str
    edits: tuple[Edit, ...]
    caught_by: frozenset[str]


def mutate(source: str, edit: Edit) -> str:
    """The changed source.

    Raises:
        MutantOutdated: the old text is not there exactly once.
    """
    found = source.count(edit.old)
    if found != 1:
        raise MutantOutdated(f"{edit.module} holds {found} times, not once: {edit.old!r}")
    return source.replace(edit.old, edit.new)


def mutant(name: str, caught_by: str, *edits: Edit) -> Mutant:
    """A mutant; ``caught_by`` names its invariants with blanks between."""
    return Mutant(name, edits, frozenset(caught_by.split()))
