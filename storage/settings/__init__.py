"""Every setting, read once from the environment (``TIDEMILL_…``) or a ``.env`` file."""

from storage.settings.groups import (
    DEFAULT_TENANT,
    MIB,
    ApiSettings,
    EngineSettings,
    ProcessSettings,
    StorageSettings,
    WorkerSettings,
)
from storage.settings.load import NAMES, Settings, variable

__all__ = [
    "DEFAULT_TENANT",
    "MIB",
    "NAMES",
    "ApiSettings",
    "EngineSettings",
    "ProcessSettings",
    "Settings",
    "StorageSettings",
    "WorkerSettings",
    "variable",
]
