"""Batch inference for language models on your own machines.

`tidemill.Client` talks to a running service and takes frames; `tidemill.client.Client` is the same
without them, and loads sooner. The `tidemill` command does the rest.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.frames.client import Client

__all__ = ["Client"]


def __getattr__(name: str) -> Any:
    # Lazy: both take longer than the rest of a command's start.
    if name == "Client":
        from tidemill.frames.client import Client

        return Client
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tidemill")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"
