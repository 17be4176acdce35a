"""Settings: from the environment, and the embedded mode where nothing is set."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from storage.settings import DEFAULT_TENANT, Settings


def test_the_embedded_mode_needs_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert settings.embedded
    assert settings.resolved_database_url == f"sqlite:///{tmp_path / 'tidemill.db'}"
    assert settings.resolved_object_store_url == (tmp_path / "objects").as_uri()
    assert settings.keys_by_secret == {}


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
    settings = Settings(home=tmp_path, database_url=url.format(home=tmp_path))
    assert settings.database_in_home is inside


def test_a_relative_home_is_made_absolute() -> None:
    assert Settings(home=Path("data")).home == Path.cwd() / "data"
    assert Settings(home=Path("~/data")).home == Path.home() / "data"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_spoken_to_by_psycopg(scheme: str) -> None:
    settings = Settings(database_url=f"{scheme}://user@host/name")
    assert settings.resolved_database_url == "postgresql+psycopg://user@host/name"


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_BROKER_URL", "redis://host/0")
    monkeypatch.setenv("TIDEMILL_S3_SECRET_ACCESS_KEY", "hidden")
    settings = Settings()
    assert not settings.embedded
    assert settings.broker_url == "redis://host/0"
    assert settings.s3_secret_access_key is not None
    assert settings.s3_secret_access_key.get_secret_value() == "hidden"
    assert "hidden" not in repr(settings)


def test_api_keys_name_their_tenant() -> None:
    settings = Settings(api_keys="alone, acme:one ,acme:two,")
    assert settings.keys_by_secret == {"alone": DEFAULT_TENANT, "one": "acme", "two": "acme"}


def test_senseless_values_are_refused() -> None:
    for wrong in ({"port": 70_000}, {"lease_seconds": 1}, {"batching": "magic"}):
        with pytest.raises(ValidationError):
            Settings(**wrong)  # type: ignore[arg-type]
