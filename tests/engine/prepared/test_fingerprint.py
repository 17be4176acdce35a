"""A fingerprint of prepared weights changes with everything that they follow from."""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.catalog import ModelFiles
from engine.prepared import fingerprint as fingerprints
from engine.prepared.fingerprint import fingerprint
from engine.prepared.keeper import end_keepers
from engine.prepared.keeping import Keeping

WEIGHTS = "model.safetensors"


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFiles:
    """A folder with files of a model's names; they count as settled at once."""
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 0)
    folder = tmp_path / "model"
    folder.mkdir()
    for name in (WEIGHTS, "config.json", "README.md"):
        (folder / name).write_bytes(b"0123456789")
    return ModelFiles("model", folder, None)


def of(files: ModelFiles, *facts: object) -> str:
    found = fingerprint(files, facts)
    assert found is not None
    return found


def write_in_place(path: Path) -> None:
    """Other bytes of the same number; the times of access and change of data are set back."""
    before = path.stat()
    with path.open("r+b") as file:
        file.write(b"x")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)


def replace_by_a_copy(path: Path) -> None:
    shutil.copy2(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").replace(path)


def point_elsewhere(path: Path) -> None:
    path.rename(path.with_suffix(".real"))
    path.symlink_to(path.with_suffix(".real"))


CHANGES: dict[str, Callable[[Path], object]] = {
    "other bytes": lambda path: path.write_bytes(b"9876543210"),
    "other bytes under old times": write_in_place,
    "longer": lambda path: path.write_bytes(b"0123456789a"),
    "an equal copy": replace_by_a_copy,
    "a link": point_elsewhere,
    "touched": lambda path: path.touch(),
    "one more file": lambda path: (path.parent / "model-2.safetensors").write_bytes(b""),
    "other settings": lambda path: (path.parent / "config.json").write_bytes(b"{}"),
}

OF_FOLDERS = ("one more file", "other settings")  # a GGUF file is the whole model


@pytest.mark.parametrize(
    ("change", "single"),
    [
        pytest.param(change, single, id=f"{name} of a {'file' if single else 'folder'}")
        for name, change in CHANGES.items()
        for single in (False, True)
        if not (single and name in OF_FOLDERS)
    ],
)
def test_it_changes_with_the_files(
    files: ModelFiles, change: Callable[[Path], object], *, single: bool
) -> None:
    if single:
        files = ModelFiles("model", files.folder, files.folder / WEIGHTS)
    before = of(files)
    assert of(files) == before
    time.sleep(0.02)  # the clock of a file system goes in ticks of some milliseconds
    change(files.folder / WEIGHTS)
    assert of(files) != before


def test_it_changes_with_facts_and_code(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {of(files), of(files, 1), of(files, "1"), of(files, 1, None), of(files, (1, None))}
    assert len(found) == 5
    monkeypatch.setattr(fingerprints, "SOURCES", "others")
    assert of(files) not in found


def test_what_is_no_file_of_weights_or_settings_does_not_count(files: ModelFiles) -> None:
    before = of(files)
    (files.folder / "README.md").write_text("more")
    assert of(files) == before


def test_there_is_none_where_a_change_could_go_unseen(
    files: ModelFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fingerprint(files, ()) is not None
    with monkeypatch.context() as patch:
        patch.setattr(fingerprints, "SOURCES", None)
        assert fingerprint(files, ()) is None, "code that cannot be read"
    nowhere = ModelFiles("model", files.folder / "nowhere", None)
    assert fingerprint(nowhere, ()) is None
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 60_000_000_000)
    assert fingerprint(files, ()) is None, "files that were written a moment ago"


def test_every_source_that_decides_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("models", "quantize", "gguf", "executors", "prepared", "kernels/native/csrc"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "one.py").write_text("one")
    monkeypatch.setattr(fingerprints, "_ENGINE", tmp_path)
    found = {fingerprints._digest_of_sources()}
    (tmp_path / "quantize" / "one.py").write_text("two")
    found.add(fingerprints._digest_of_sources())
    (tmp_path / "kernels" / "native" / "csrc" / "product.c").write_text("two")
    found.add(fingerprints._digest_of_sources())
    (tmp_path / "models" / "one.py").rename(tmp_path / "models" / "two.py")
    found.add(fingerprints._digest_of_sources())
    assert len(found) == 4
    real = set(map(str, Path(fingerprints.__file__).parents[1].rglob("rotate.py")))
    assert real, "the folders are still called so"


def test_weights_of_files_that_changed_while_they_were_read_are_not_kept(
    files: ModelFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    keeping = Keeping.of(files, ())
    assert keeping is not None
    time.sleep(0.02)
    write_in_place(files.folder / WEIGHTS)
    keeping.keep({}, {})
    end_keepers(30)
    assert not list(tmp_path.rglob(f"{keeping.fingerprint}*"))
    again = Keeping.of(files, ())
    assert again is not None
    again.keep({}, {})
    end_keepers(30)
    assert list(tmp_path.rglob(f"{again.fingerprint}*"))
