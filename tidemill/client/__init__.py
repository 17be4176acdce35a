"""A client of the service: ``from tidemill.client import Client, Upload``.

The names are imported when first used, so that the shapes load without an HTTP library.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.client.client import DEFAULT_URL, Client
    from tidemill.client.uploads import Upload

__all__ = ["DEFAULT_URL", "Client", "Upload"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("tidemill.client.client"), name)
