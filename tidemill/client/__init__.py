"""A client of the service: ``from tidemill.client import Client, Upload``.

The names are imported when first used, so that the shapes load without an HTTP library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.client.client import DEFAULT_URL, Client
    from tidemill.client.uploads import Upload

__all__ = ["DEFAULT_URL", "Client", "Upload"]

_MODULES = {
    "DEFAULT_URL": "tidemill.client.client",
    "Client": "tidemill.client.client",
    "Upload": "tidemill.client.uploads",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
