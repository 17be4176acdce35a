"""What `tidemill doctor` looks at. Each check says what it found, and what to do if it is bad."""

import os
import platform
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from msgspec import Struct

from storage.errors import StorageError
from storage.settings import Settings

MIN_PYTHON = (3, 11)
BROKER_SECONDS = 5.0


class Check(Struct, frozen=True):
    """One check's outcome. Where ``needed``, Tidemill does not work on this machine without it."""

    name: str
    ok: bool
    found: str
    hint: str = ""
    needed: bool = True


def run_checks(settings: Settings) -> list[Check]:
    """Every check, in the order in which to mend things.

    Raises:
        ConfigurationError: the engine's settings cannot be used.
    """
    from worker.models.engines import check_engine_settings

    check_engine_settings(settings.engine)
    checks: Iterable[Iterator[Check]] = (
        _python(),
        _torch(),
        _model(settings),
        _home(settings),
        _kept_weights(),
        _database(settings),
        _store(settings),
        _broker(settings),
        _running(settings),
    )
    return [check for group in checks for check in group]


def _python() -> Iterator[Check]:
    ok = sys.version_info >= MIN_PYTHON
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("python", ok, found, "" if ok else "Install Python 3.11 or newer.")


def _torch() -> Iterator[Check]:
    for package in ("torch", "safetensors"):
        try:
            found = version(package)
        except PackageNotFoundError:
            found = ""
        hint = "" if found else "pip install 'tidemill[engine]'"
        yield Check(package, bool(found), found or "not installed", hint)
        if not found:
            return
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("device", False, f"torch does not load: {error}", "Install torch again.")
        return
    from engine.executors.gpu_report import gather, report

    facts = gather()
    for finding in report(facts):
        yield Check("gpu", finding.ok, finding.found, finding.hint, needed=False)
    if not facts.gpus:
        cores = len(os.sched_getaffinity(0))
        found = f"CPU, {cores} cores, {torch.backends.cpu.get_cpu_capability()}"
        yield Check("device", True, found)


def _model(settings: Settings) -> Iterator[Check]:
    from engine.catalog import BUILTIN
    from engine.errors import EngineError
    from tidemill.serve.model_store import known_source, model_config

    name = settings.worker.default_model
    try:
        config = model_config(known_source(settings, name))
    except (EngineError, StorageError) as error:
        pull = f"tidemill models pull {name}"
        yield Check("model", False, str(error), pull if name in BUILTIN else "")
        return
    yield Check("model", True, f"{name}: {config.family}, context {config.max_position:,}")


def _home(settings: Settings) -> Iterator[Check]:
    place = _existing(settings.storage.home)
    writable = os.access(place, os.W_OK | os.X_OK)
    yield Check(
        "home folder",
        writable,
        str(settings.storage.home) if writable else f"{place} cannot be written",
        "" if writable else "Choose another with --home or TIDEMILL_HOME.",
    )
    from storage.probes import folders, look_at_disk

    for variable, folder in folders(settings.storage):
        finding = look_at_disk(folder)
        hint = f"{finding.meaning} Or set {variable}." if finding.meaning else ""
        yield Check("disk space", finding.ok, f"{finding.found} in {folder}", hint)


def _kept_weights() -> Iterator[Check]:
    from engine.prepared.folder import kept_files, weights_folder

    place = weights_folder()
    try:
        kept = kept_files(place) if place else []
    except OSError:
        return  # a folder that cannot be read keeps nothing
    if kept:
        size = sum(each.bytes for each in kept) / 2**30
        yield Check("kept weights", True, f"{size:.1f} GiB in {place}", needed=False)


def _database(settings: Settings) -> Iterator[Check]:
    from storage.database.connection import Database
    from storage.probes import look_at_clock

    try:
        database = Database(settings.storage.resolved_database_url)
        name = "SQLite" if database.dialect == "sqlite" else "PostgreSQL"
        path = Path(database.url.database or "")
        if database.dialect == "sqlite" and not path.exists():
            yield Check("database", True, f"{name}; made at the first start")
            return
        clock = look_at_clock(database)
        database.close()
    except StorageError as error:
        yield Check("database", False, str(error), "Check TIDEMILL_DATABASE_URL.")
        return
    yield Check("database", True, name)
    yield Check("clock", True, clock.found, clock.meaning)


def _store(settings: Settings) -> Iterator[Check]:
    from storage.objects import open_store
    from storage.probes import look_at_store

    local = settings.storage.resolved_object_store_url.startswith("file:")
    if local and not settings.storage.home.exists():
        yield Check("object store", True, "a local folder; made at the first start")
        return
    try:
        finding = look_at_store(open_store(settings.storage))
    except StorageError as error:
        yield Check("object store", False, str(error), "Check TIDEMILL_OBJECT_STORE_URL.")
        return
    kind = "a local folder" if local else "S3"
    yield Check("object store", True, f"{kind}; it {finding.found}", finding.meaning)


def _broker(settings: Settings) -> Iterator[Check]:
    if settings.storage.embedded:
        yield Check("broker", True, "none: all is one process")
        return
    from kombu.exceptions import KombuError, OperationalError

    from storage.broker import celery_app

    try:
        with celery_app(settings.storage).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, timeout=BROKER_SECONDS)
    except (KombuError, OperationalError, OSError):
        yield Check("broker", False, "it cannot be reached", "Check TIDEMILL_BROKER_URL.")
        return
    yield Check("broker", True, "reachable")


def _running(settings: Settings) -> Iterator[Check]:
    from storage.home import read_owner

    owner = read_owner(settings.storage.home)
    found = "no service uses the home folder now"
    if owner is not None:
        where = f" at {owner.url}" if owner.url else ""
        found = f"process {owner.pid} serves the home folder{where}"
    yield Check("service", owner is not None, found, "tidemill up" if not owner else "", False)


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
