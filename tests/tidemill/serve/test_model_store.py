"""Models of a home folder: what is added can be loaded, and what cannot any more is told."""

import os
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from engine.catalog import resolve
from engine.errors import CheckpointError, ModelNotFound
from storage.settings import Settings
from tidemill.cli.main import app
from tidemill.cli.render import describe
from tidemill.client.shapes import Batch, BatchExtension, Wait
from tidemill.run.progress import phase_of
from tidemill.serve.model_store import add_model, list_models


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.load(home=tmp_path / "home")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    weights = resolve("smollm2").gguf
    assert weights is not None
    return Path(shutil.copy(weights, tmp_path / "mine.gguf"))


def test_only_what_can_be_loaded_is_added(settings: Settings, copy: Path, tmp_path: Path) -> None:
    assert add_model(settings, "mine", copy) == "mine: llama, context 8,192"
    with pytest.raises(ModelNotFound):
        add_model(settings, "gone", tmp_path / "gone")
    os.truncate(copy, 10_000_000)
    with pytest.raises(CheckpointError, match="is truncated"):
        add_model(settings, "cut", copy)
    assert [model.name for model in list_models(settings)] == ["mine", "smollm2"]


def test_the_list_says_what_is_wrong_with_a_model(settings: Settings, copy: Path) -> None:
    add_model(settings, "mine", copy)
    home = ["models", "list", "--home", str(settings.storage.home)]
    os.truncate(copy, 10_000_000)
    mine, builtin = CliRunner().invoke(app, home).stdout.splitlines()[1:]
    assert mine.startswith(f"mine\t{copy}\tunusable: {copy} is truncated: tensor ")
    assert builtin == "smollm2\tsmollm2\tready"
    copy.unlink()
    mine = CliRunner().invoke(app, home).stdout.splitlines()[1]
    assert mine.startswith(f"mine\t{copy}\tunusable: There is no model '{copy}'.")


def test_the_status_says_what_a_batch_waits_for() -> None:
    wait = Wait("out_of_cache", "The model 'm' cannot be loaded at the moment: no memory.", "m")
    batch = Batch("batch_1", "in_progress", "/v1/completions", "file", 0)
    assert phase_of(batch) == "Running"
    waiting = Batch(
        "batch_1",
        "in_progress",
        "/v1/completions",
        "file",
        0,
        tidemill=BatchExtension(waiting_for=wait),
    )
    assert phase_of(waiting) == "Waiting"
    fields = dict(describe(waiting))
    assert fields["status"] == "in_progress, waiting"
    assert fields["waiting for"] == wait.message
