"""Batch inference for language models on your own machines.

`tidemill.client.Client` talks to a running service; the `tidemill` command does the rest.
"""


def __getattr__(name: str) -> str:
    # Lazy: looking the version up takes longer than the rest of a command's start.
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("tidemill")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+source"
