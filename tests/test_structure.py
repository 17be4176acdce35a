"""The tree keeps its shape: no circle of imports, floors point down, files and folders are small.

The checks themselves are tested on small trees with one fault each.
"""

import re
from itertools import pairwise
from pathlib import Path

import pytest

from structure import (
    Graph,
    find_circles,
    find_modules,
    full_folders,
    import_graph,
    imports_between,
    long_files,
    sibling_graphs,
    source_files,
    wrong_arrows,
)

ROOT = Path(__file__).parents[1]
FLOORS = ({"tidemill"}, {"api", "worker"}, {"engine", "storage"})
PRODUCT = sorted(set().union(*FLOORS))
EVERYTHING = (*PRODUCT, "deploy", "tests", "benchmarks")
MOST_LINES = 300
MOST_FILES = 16


@pytest.fixture(scope="module")
def graph() -> dict[str, set[str]]:
    return import_graph(find_modules(ROOT, PRODUCT))


def expect_none(found: list[str], what: str) -> None:
    """Fail with one line for each finding."""
    if found:
        pytest.fail("\n  ".join([f"{what}:", *found]), pytrace=False)


def package_circles(graph: Graph) -> list[str]:
    """A line for each circle among the children of one package, and one for each import in it."""
    lines = []
    for above, siblings in sorted(sibling_graphs(graph).items()):
        for circle in find_circles(siblings):
            lines.append(f"in {above or 'the tree'}: {' -> '.join(circle)}")
            for one, other in pairwise(circle):
                imports = imports_between(graph, one, other)
                lines += [f"  {module} imports {target}" for module, target in imports]
    return lines


def test_no_files_import_each_other_in_a_circle(graph: dict[str, set[str]]) -> None:
    expect_none([" -> ".join(x) for x in find_circles(graph)], "circles of imports")


def test_no_packages_import_each_other_in_a_circle(graph: dict[str, set[str]]) -> None:
    expect_none(package_circles(graph), "circles among the children of a package")


def test_no_import_leads_up_or_sideways(graph: dict[str, set[str]]) -> None:
    found = [f"{module} imports {target}" for module, target in wrong_arrows(graph, FLOORS)]
    order = " over ".join(" | ".join(sorted(floor)) for floor in FLOORS)
    expect_none(found, f"imports against the floors, {order}")


def test_no_file_is_long() -> None:
    files = source_files(ROOT, EVERYTHING)
    found = [f"{path}: {count}" for path, count in long_files(ROOT, files, MOST_LINES)]
    expect_none(found, f"files of more than {MOST_LINES} lines")


def test_no_folder_is_full() -> None:
    files = source_files(ROOT, EVERYTHING)
    found = [f"{folder}: {count}" for folder, count in full_folders(files, MOST_FILES)]
    expect_none(found, f"folders of more than {MOST_FILES} source files")


def test_every_slow_test_that_is_listed_exists() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    lines = (ROOT / "tests/slow.txt").read_text().splitlines()
    names = [line for line in lines if not line.startswith("#")]
    expect_none(
        [name for name in names if not re.search(rf"^(def {name}\(|{name} = )", text, re.M)],
        "names in tests/slow.txt that no test has",
    )


def test_the_graph_is_of_the_whole_product(graph: dict[str, set[str]]) -> None:
    assert {name.split(".")[0] for name in graph} == set(PRODUCT)
    assert len(graph) > 200
    assert "engine.config" in graph["engine"]
    assert "engine.llm" in graph["engine"], "an import under TYPE_CHECKING"
    assert "tidemill.client.client" in graph["tidemill.client"], "import_module of a literal"


def make_tree(root: Path, files: dict[str, str]) -> dict[str, set[str]]:
    """Write the files, and read who imports whom."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return import_graph(find_modules(root, sorted({name.split("/")[0] for name in files})))


@pytest.mark.parametrize(
    "late",
    [
        "import low.a",
        "from low import a",
        "from low.a import x",
        "from . import a",
        "from .a import x",
        "def f():\n    from low.a import x",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from low.a import x",
        "import importlib\nimportlib.import_module('low.a')",
        "class A:\n    def f(self):\n        if 1:\n            import low.a as other",
    ],
)
def test_a_planted_circle_of_files_is_found(late: str, tmp_path: Path) -> None:
    files = {"low/__init__.py": "", "low/a.py": "from low import b", "low/b.py": "import low.c"}
    assert find_circles(make_tree(tmp_path, files | {"low/c.py": ""})) == []
    graph = make_tree(tmp_path, files | {"low/c.py": late})
    assert find_circles(graph) == [["low.a", "low.b", "low.c", "low.a"]]


def test_a_package_that_its_own_module_imports_is_a_circle(tmp_path: Path) -> None:
    files = {"low/__init__.py": "from low.a import x", "low/a.py": "from low import y"}
    assert find_circles(make_tree(tmp_path, files)) == [["low", "low.a", "low"]]


def test_each_circle_is_named_once() -> None:
    one = {"a": {"b"}, "b": {"c", "a"}, "c": {"b"}}
    assert find_circles(one | {"x": {"y"}, "y": {"x"}, "z": {"x", "a"}}) == [
        ["a", "b", "a"],
        ["c", "b", "c"],
        ["x", "y", "x"],
    ]
    assert find_circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_planted_circle_of_packages_is_found(tmp_path: Path) -> None:
    files = {
        "low/one/a.py": "import low.two.a",
        "low/one/b.py": "",
        "low/two/a.py": "",
        "low/two/b.py": "from low.one import b",
    }
    graph = make_tree(tmp_path, files)
    assert find_circles(graph) == []
    lines = package_circles(graph)
    assert lines == [
        "in low: low.one -> low.two -> low.one",
        "  low.one.a imports low.two.a",
        "  low.two.b imports low.one.b",
    ]
    with pytest.raises(pytest.fail.Exception, match=r"circles:\n  in low: low\.one -> low\.two"):
        expect_none(lines, "circles")
    (tmp_path / "low/two/b.py").write_text("")
    assert package_circles(import_graph(find_modules(tmp_path, ["low"]))) == []


def test_planted_arrows_against_the_floors_are_found(tmp_path: Path) -> None:
    files = {
        "high/a.py": "import low.a",
        "low/a.py": "",
        "low/b.py": "import high.a\nfrom beside import a\nimport low.a",
        "beside/a.py": "",
    }
    graph = make_tree(tmp_path, files)
    assert wrong_arrows(graph, [{"high"}, {"low", "beside"}]) == [
        ("low.b", "beside.a"),
        ("low.b", "high.a"),
    ]


def test_planted_long_files_and_full_folders_are_found(tmp_path: Path) -> None:
    three, four = "1\n" * 3, "1;\n" * 4
    make_tree(tmp_path, {"p/a.py": three, "p/b.c": four, "p/q/c.h": "", "p/n.md": four})
    files = source_files(tmp_path, ["p"])
    assert files == [Path("p/a.py"), Path("p/b.c"), Path("p/q/c.h")]
    assert long_files(tmp_path, files, 3) == [(Path("p/b.c"), 4)]
    assert full_folders(files, 1) == [(Path("p"), 2)]
    assert full_folders(files, 2) == []
