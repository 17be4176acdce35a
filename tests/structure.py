"""The shape of the source tree: which file imports which, and how large files and folders are."""

import ast
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

Graph = Mapping[str, set[str]]
"""Module names and, for each, the names of the modules that it imports."""

SOURCE = frozenset({".py", ".c", ".h"})


def find_modules(root: Path, packages: Iterable[str]) -> dict[str, Path]:
    """Every module of the packages by its dotted name; paths are relative to ``root``.

    A package's own name stands for its ``__init__.py``.
    """
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def import_graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Who imports whom among these modules.

    Imports inside functions and under ``TYPE_CHECKING`` count, and so does ``import_module`` of a
    literal name: a circle that is closed late is a circle all the same.
    """
    graph: dict[str, set[str]] = {}
    for module, path in modules.items():
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        targets = {
            target
            for node in ast.walk(ast.parse(path.read_text()))
            for target in _imported(node, package, modules)
        }
        graph[module] = targets - {module}
    return graph


def _imported(node: ast.AST, package: str, modules: Mapping[str, Path]) -> Iterator[str]:
    """The modules that one syntax node imports; ``package`` is where its file lies."""
    match node:
        case ast.Import(names=names):
            yield from (alias.name for alias in names if alias.name in modules)
        case ast.ImportFrom(module=name, names=names, level=level):
            source = _absolute(name, level, package)
            for alias in names:
                # `from package import module` reads the module, not the package's own names.
                inner = f"{source}.{alias.name}"
                if inner in modules:
                    yield inner
                elif source in modules:
                    yield source
        case ast.Call(
            func=ast.Name(id="import_module") | ast.Attribute(attr="import_module"),
            args=[ast.Constant(value=str(name)), *_],
        ) if name in modules:
            yield name


def _absolute(name: str | None, level: int, package: str) -> str:
    if not level:
        return name or ""
    parts = package.split(".")
    return ".".join([*parts[: len(parts) - level + 1], *filter(None, [name])])


def find_circles(graph: Graph) -> list[list[str]]:
    """The shortest circle through each node that is in no circle found before.

    A circle is a list that begins and ends with the same name.
    """
    circles: list[list[str]] = []
    for node in sorted(graph):
        if not any(node in circle for circle in circles):
            circle = _circle_through(graph, node)
            if circle:
                circles.append(circle)
    return circles


def _circle_through(graph: Graph, start: str) -> list[str]:
    """The shortest way from ``start`` back to it, or an empty list."""
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for target in sorted(graph.get(node, ())):
            if target == start:
                way = [start, node]
                while way[-1] != start:
                    way.append(came_from[way[-1]])
                return way[::-1]
            if target not in came_from:
                came_from[target] = node
                queue.append(target)
    return []


def sibling_graphs(graph: Graph) -> dict[str, dict[str, set[str]]]:
    """For each package who of its children imports whom; the top level's name is empty.

    A child that is a package counts with everything in it.
    """
    levels: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for module, targets in graph.items():
        for target in targets:
            above, one, other = _split(module.split("."), target.split("."))
            if one and other:
                levels[above][one].add(other)
    return levels


def _split(one: Sequence[str], other: Sequence[str]) -> tuple[str, str, str]:
    """The package that holds both, and its two children; a child is empty where it is one."""
    same = next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b),
        min(len(one), len(other)),
    )
    return (
        ".".join(one[:same]),
        ".".join(one[: same + 1]) if len(one) > same else "",
        ".".join(other[: same + 1]) if len(other) > same else "",
    )


def imports_between(graph: Graph, one: str, other: str) -> list[tuple[str, str]]:
    """Who (importer, imported) in the package or module ``one`` imports something in ``other``."""
    return sorted(
        (module, target)
        for module, targets in graph.items()
        for target in targets
        if _within(module, one) and _within(target, other)
    )


def _within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def wrong_arrows(graph: Graph, floors: Sequence[set[str]]) -> list[tuple[str, str]]:
    """Imports (importer, imported) that lead up a floor or to a neighbour on the same one.

    Args:
        floors: top-level packages, the highest floor first.
    """
    floor = {package: number for number, packages in enumerate(floors) for package in packages}
    return sorted(
        (module, target)
        for module, targets in graph.items()
        for target in targets
        if (a := module.split(".")[0]) != (b := target.split(".")[0]) and floor[b] <= floor[a]
    )


def source_files(root: Path, folders: Iterable[str]) -> list[Path]:
    """Every source file under the folders, as paths relative to ``root``."""
    return sorted(
        path.relative_to(root)
        for folder in folders
        for path in (root / folder).rglob("*")
        if path.suffix in SOURCE and "__pycache__" not in path.parts
    )


def long_files(root: Path, files: Iterable[Path], most: int) -> list[tuple[Path, int]]:
    """The files of more than ``most`` lines, and how many they have."""
    counted = ((path, len((root / path).read_bytes().splitlines())) for path in files)
    return [(path, count) for path, count in counted if count > most]


def full_folders(files: Iterable[Path], most: int) -> list[tuple[Path, int]]:
    """The folders that hold, in themselves, more than ``most`` of the files."""
    held: dict[Path, int] = defaultdict(int)
    for path in files:
        held[path.parent] += 1
    return sorted((folder, count) for folder, count in held.items() if count > most)
