"""Names in the code hold a word of docs/glossary.md only where the glossary says so."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ("tidemill", "api", "worker", "engine", "storage")
# Words that were given up for the field's: no name may hold one of them again.
GIVEN_UP = frozenset(
    [
        "answer",
        "answers",
        "area",
        "areas",
        "bell",
        "crew",
        "doorbell",
        "greatest",
        "holding",
        "loud",
        "loudest",
        "mix",
        "mixed",
        "soften",
        "turns",
        "urgency",
        "urgent",
    ]
)
# Names that are part of the wire, the environment, the command line or a file's format.
PUBLIC = frozenset({"answer", "answer_column", "answer_columns"})


def terms() -> dict[str, tuple[str, ...]]:
    """Each word of the glossary's tables, and the folders whose names may hold it."""
    found = {}
    for line in (ROOT / "docs" / "glossary.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| ") and len(cells) == 3 and cells[0] != "word":
            found[cells[0]] = tuple(re.findall(r"`([\w/]+)`", cells[2]))
    return found


def words_of(name: str) -> list[str]:
    """``PlannedChunk`` and ``planned_chunk`` → planned, chunk."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def names_in(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every name that a module defines: classes, functions, arguments, variables, attributes."""
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                yield node.name, node.lineno
            case ast.arg():
                yield node.arg, node.lineno
            case ast.Name(ctx=ast.Store()):
                yield node.id, node.lineno
            case ast.Attribute(ctx=ast.Store()):
                yield node.attr, node.lineno


def misplaced(name: str, folder: str, glossary: dict[str, tuple[str, ...]]) -> str | None:
    """The word that a name must not hold in this folder, if there is one."""
    if name.strip("_").lower() in PUBLIC:
        return None
    for word in words_of(name):
        if word in GIVEN_UP:
            return word
        term = word if word in glossary else word.removesuffix("s")
        places = glossary.get(term, ())
        if places and not any(
            folder == place or folder.startswith(f"{place}/") for place in places
        ):
            return term
    return None


def test_the_glossary_has_its_words() -> None:
    found = terms()
    assert {"request", "sequence", "step", "block", "prefill", "decode"} <= found.keys()
    assert {"chunk", "lease", "attempt", "part", "shard", "plan"} <= found.keys()


@pytest.mark.parametrize(
    ("name", "folder", "word"),
    [
        ("part_key", "storage/jobs", None),
        ("part_key", "engine/kernels", "part"),
        ("AttentionPlan", "engine/kernels", "plan"),
        ("PlannedChunk", "storage/jobs", None),
        ("num_steps", "api/routes", "step"),
        ("_crew", "worker/process", "crew"),
        ("partition", "engine/kernels", None),
        ("answer_column", "tidemill/cli", None),
    ],
)
def test_a_word_out_of_its_place_is_found(name: str, folder: str, word: str | None) -> None:
    assert misplaced(name, folder, terms()) == word


@pytest.mark.parametrize("floor", FLOORS)
def test_every_name_holds_words_in_their_one_meaning(floor: str) -> None:
    glossary = terms()
    wrong: dict[str, set[str]] = defaultdict(set)
    for path in sorted((ROOT / floor).rglob("*.py")):
        folder = path.parent.relative_to(ROOT).as_posix()
        for name, line in names_in(ast.parse(path.read_text())):
            word = misplaced(name, folder, glossary)
            if word is not None:
                wrong[word].add(f"{path.relative_to(ROOT)}:{line} {name}")
    shown = "\n".join(f"{word}: {', '.join(sorted(places))}" for word, places in wrong.items())
    assert not wrong, f"words out of their place (docs/glossary.md):\n{shown}"
