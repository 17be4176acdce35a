"""From flat environment variables to the groups of settings."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, SecretStr, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, DotEnvSettingsSource, SettingsConfigDict

from storage.settings.groups import (
    ApiSettings,
    EngineSettings,
    ProcessSettings,
    StorageSettings,
    WorkerSettings,
)

PREFIX = "TIDEMILL_"
ENV_FILE = Path(".env")

Group = TypeVar("Group", bound=BaseModel)


class _Flat(
    ProcessSettings, EngineSettings, WorkerSettings, ApiSettings, StorageSettings, BaseSettings
):
    """Every setting of every group, read and validated together."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_file=ENV_FILE, extra="ignore")

    @field_validator("*")
    @classmethod
    def _utf8(cls, value: object) -> object:
        # URLs, SQL and JSON are made of these; a home folder is part of the database's URL.
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        try:
            str(text).encode()
        except UnicodeEncodeError as error:
            raise PydanticCustomError("not_utf8", "It is not UTF-8 text") from error
        return value


NAMES = frozenset(_Flat.model_fields)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one process, in groups.

    A group's ``model_fields_set`` names what was chosen, by a variable or by `load`.
    """

    storage: StorageSettings
    api: ApiSettings
    worker: WorkerSettings
    engine: EngineSettings
    process: ProcessSettings

    @classmethod
    def load(cls, *, env_file: Path | None = ENV_FILE, **given: Any) -> Self:
        """The settings of the environment and of ``env_file``.

        Args:
            env_file: lines of ``NAME=value``; ``None``, or a file that is not there, adds nothing.
            given: settings by their flat names (``home=…``, ``port=0``); these come first.

        Raises:
            pydantic.ValidationError: a value is not allowed.
            TypeError: ``given`` names a setting that there is not.
        """
        if unknown := sorted(given.keys() - NAMES):
            raise TypeError(f"There is no setting {', '.join(unknown)}.")
        flat = _Flat(_env_file=env_file, **given)
        return cls(
            storage=_group(StorageSettings, flat),
            api=_group(ApiSettings, flat),
            worker=_group(WorkerSettings, flat),
            engine=_group(EngineSettings, flat),
            process=_group(ProcessSettings, flat),
        )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def file_variables() -> Mapping[str, str | None]:
    """What the ``.env`` file sets, by names in lower case; not only settings."""
    return DotEnvSettingsSource(_Flat).env_vars


def _group(kind: type[Group], flat: _Flat) -> Group:
    """The fields of one group. They are validated already."""
    names = kind.model_fields.keys()
    chosen = flat.model_fields_set & names
    return kind.model_construct(chosen, **{name: getattr(flat, name) for name in names})
