"""Settings: from the environment, in groups, and the embedded mode where nothing is set."""

import os
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import ValidationError

from storage.settings import DEFAULT_TENANT, NAMES, Settings, variable
from storage.settings.unknown import unknown_variables, warn_of_unknown_variables


def test_the_embedded_mode_needs_nothing(tmp_path: Path) -> None:
    settings = Settings.load(home=tmp_path)
    assert settings.storage.embedded
    assert settings.storage.resolved_database_url == f"sqlite:///{tmp_path / 'tidemill.db'}"
    assert settings.storage.resolved_object_store_url == (tmp_path / "objects").as_uri()
    assert settings.api.keys_by_secret == {}


@pytest.mark.parametrize(
    ("url", "inside"),
    [
        ("", True),
        ("sqlite:///{home}/own.db", True),
        ("sqlite:////srv/shared.db", False),
        ("postgresql://host/tidemill", False),
    ],
)
def test_a_database_in_the_home_is_known(tmp_path: Path, url: str, inside: bool) -> None:
    settings = Settings.load(home=tmp_path, database_url=url.format(home=tmp_path))
    assert settings.storage.database_in_home is inside


@pytest.mark.parametrize("name", ["home", "default_model", "api_keys", "s3_secret_access_key"])
def test_a_value_that_is_not_utf8_is_refused_by_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(name), "caf\udce9")
    with pytest.raises(ValidationError) as caught:
        Settings.load()
    (problem,) = caught.value.errors()
    assert (problem["loc"], problem["msg"]) == ((name,), "It is not UTF-8 text")


def test_a_relative_home_is_made_absolute() -> None:
    assert Settings.load(home=Path("data")).storage.home == Path.cwd() / "data"
    assert Settings.load(home=Path("~/data")).storage.home == Path.home() / "data"


@pytest.mark.parametrize("host", ["a..b", ".a", "x" * 64, f"b.{'x' * 64}"])
@pytest.mark.parametrize(
    ("name", "scheme"),
    [("broker_url", "redis"), ("database_url", "postgresql"), ("s3_endpoint_url", "http")],
)
def test_a_host_that_nobody_can_look_up_is_refused(name: str, scheme: str, host: str) -> None:
    values: dict[str, Any] = {name: f"{scheme}://user:secret@{host}:1/x"}
    with pytest.raises(ValidationError) as caught:
        Settings.load(**values)
    (problem,) = caught.value.errors()
    assert problem["loc"] == (name,)
    assert (host in problem["msg"], "secret" in problem["msg"]) == (True, False)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@host:5432/name",
        f"postgresql://{'a' * 40},{'b' * 40}/name",
        "postgresql:///name?host=/run",
        "postgresql://u:[p@host/name",
        "sqlite:////folder/a..b",
        "postgresql://[::1]/name",
    ],
)
def test_hosts_that_can_be_looked_up(url: str) -> None:
    assert Settings.load(database_url=url).storage.database_url == url


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_by_psycopg(scheme: str) -> None:
    settings = Settings.load(database_url=f"{scheme}://user@host/name")
    assert settings.storage.resolved_database_url == "postgresql+psycopg://user@host/name"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_BROKER_URL", "redis://host/0")
    monkeypatch.setenv("TIDEMILL_S3_SECRET_ACCESS_KEY", "hidden")
    settings = Settings.load()
    assert not settings.storage.embedded
    assert settings.storage.broker_url == "redis://host/0"
    secret = settings.storage.s3_secret_access_key
    assert secret is not None
    assert secret.get_secret_value() == "hidden"
    assert "hidden" not in repr(settings)


def test_api_keys_name_their_tenant() -> None:
    settings = Settings.load(api_keys="alone, acme:one ,acme:two,")
    assert settings.api.keys_by_secret == {"alone": DEFAULT_TENANT, "one": "acme", "two": "acme"}


def test_further_hosts_are_names() -> None:
    settings = Settings.load(allowed_hosts=" Tidemill.example, app.example:3000 ,[::2]:80,")
    assert settings.api.extra_hosts == {"tidemill.example", "app.example:3000", "[::2]:80"}
    for wrong in ("https://app.example", "app.example/", "*", "a b", "app.example:"):
        with pytest.raises(ValidationError, match="give 'name' or 'name:port'"):
            Settings.load(allowed_hosts=wrong)


def test_senseless_values_are_refused() -> None:
    senseless: list[dict[str, Any]] = [{"port": 70_000}, {"lease_seconds": 1}]
    for wrong in senseless:
        with pytest.raises(ValidationError):
            Settings.load(**wrong)


def test_a_name_that_is_no_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="There is no setting lease_second"):
        Settings.load(lease_second=60)


def test_each_setting_belongs_to_one_group() -> None:
    settings = Settings.load(env_file=None)
    groups = [getattr(settings, field.name) for field in fields(settings)]
    names = [name for group in groups for name in type(group).model_fields]
    assert len(names) == len(set(names)) == len(NAMES)


def test_what_was_chosen_is_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("TIDEMILL_MAX_CRASHES=7\n")
    monkeypatch.setenv("TIDEMILL_RENEW_SECONDS", "10.0")
    settings = Settings.load(drain_seconds=1)
    assert settings.worker.max_crashes == 7
    chosen = {"max_crashes", "renew_seconds", "drain_seconds"}
    assert settings.worker.model_fields_set == chosen
    assert Settings.load(env_file=None).worker.model_fields_set == {"renew_seconds"}


def test_settings_cannot_be_changed() -> None:
    settings = Settings.load(env_file=None)
    with pytest.raises(ValidationError):
        settings.worker.max_crashes = 7  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        settings.worker = settings.worker  # type: ignore[misc]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without any setting, and a folder without a ``.env``."""
    for name in [name for name in os.environ if name.upper().startswith("TIDEMILL_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    warn_of_unknown_variables.cache_clear()
    return monkeypatch


def test_unknown_variables_are_named_once_with_the_nearest_name(
    only: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    only.setenv("TIDEMILL_LEASE_SECOND", "60")
    only.setenv("TIDEMILL_ZZZ", "secret-value")
    (tmp_path / ".env").write_text("TIDEMILL_HOEM=/data\nPOSTGRES_PASSWORD=x\n")
    with structlog.testing.capture_logs() as logs:
        warn_of_unknown_variables()
        warn_of_unknown_variables()
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("unknown_settings", "warning")
    assert entry["found"] == (
        "TIDEMILL_HOEM (did you mean TIDEMILL_HOME?), "
        "TIDEMILL_LEASE_SECOND (did you mean TIDEMILL_LEASE_SECONDS?), TIDEMILL_ZZZ"
    )


def test_known_variables_are_not_named(only: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only.setenv("TIDEMILL_URL", "http://host:8000")
    only.setenv("TIDEMILL_API_KEY", "key")
    only.setenv("tidemill_port", "9000")  # as everywhere, the case does not matter
    (tmp_path / ".env").write_text("TIDEMILL_METRICS_PORT=9464\n")
    assert unknown_variables() == {}
    with structlog.testing.capture_logs() as logs:
        warn_of_unknown_variables()
    assert logs == []
