"""Models of a home folder: what is added can be loaded, and what cannot any more is told."""

import os
import re
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError
from typer.testing import CliRunner

from engine.catalog import files_state, resolve
from engine.errors import CheckpointError, ModelNotFound
from storage.settings import Settings
from tidemill.cli.main import app
from tidemill.cli.render import describe
from tidemill.client.shapes import Batch, BatchExtension, Wait
from tidemill.errors import PullFailed, UsageError
from tidemill.run.progress import phase_of
from tidemill.serve.model_store import add_model, list_models, pull_model


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


NOBODY = "~no-such-user/model"


def test_the_home_of_nobody(settings: Settings) -> None:
    with pytest.raises(UsageError, match=re.escape(NOBODY)):
        add_model(settings, "mine", Path(NOBODY))
    with pytest.raises(ModelNotFound, match=re.escape(NOBODY)):
        resolve(NOBODY)
    assert files_state(NOBODY) == ()
    with pytest.raises(ValidationError, match=re.escape(NOBODY)):
        Settings.load(home=Path(NOBODY))


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "x" * 5000])
def test_no_files_are_at_what_cannot_be_a_path(path: str) -> None:
    assert files_state(path) == ()


@pytest.mark.parametrize(
    ("name", "as_name", "bad"),
    [
        ("smollm2", "a b", "a b"),
        ("smollm2", "", ""),
        ("smollm2", "../up", "../up"),
        ("smollm2", "x" * 129, "x" * 129),
        ("owner/model", "a\n", "a\n"),
        ("owner/_model", None, "_model"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_before_any_download(
    settings: Settings, name: str, as_name: str | None, bad: str
) -> None:
    with pytest.raises(UsageError, match="cannot be a name") as caught:
        pull_model(settings, name, as_name)
    assert repr(bad) in str(caught.value)
    assert not settings.storage.home.exists()


@pytest.mark.parametrize("name", ["smollm--2", "a/b/c", "a b/c", "-x/y"])
def test_what_is_no_repository_is_said(settings: Settings, name: str) -> None:
    with pytest.raises(PullFailed, match="neither a built-in model"):
        pull_model(settings, name, None)


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
