"""The kinds of frames: as an Arrow table, and with columns added. Their libraries stay optional."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from tidemill.errors import InputError

FRAMES = "a pandas or polars DataFrame, a pyarrow Table, or a list of dictionaries"


def to_table(data: Any) -> pa.Table:
    """The rows of a frame.

    Args:
        data: a ``pandas.DataFrame``, a ``polars.DataFrame``, a ``pyarrow.Table``, or a list of
            dictionaries.

    Raises:
        InputError: it is something else, or has columns that Arrow cannot hold.
    """
    try:
        return _to_table(data)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"The rows cannot be read as a table: {reason}") from error


def _to_table(data: Any) -> pa.Table:
    if isinstance(data, pa.Table):
        return data
    library = type(data).__module__.partition(".")[0]
    if library == "pandas" and hasattr(data, "columns"):
        _check_names(data.columns)
        return pa.Table.from_pandas(data, preserve_index=False)
    if library == "polars" and hasattr(data, "to_arrow") and hasattr(data, "columns"):
        return data.to_arrow()
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        names = dict.fromkeys(name for row in data for name in row)
        _check_names(names)
        # Arrow takes the columns of the first row alone.
        return pa.Table.from_pylist([{**dict.fromkeys(names), **row} for row in data])
    raise InputError(f"Rows are {FRAMES}; this is a {type(data).__name__}.")


def _check_names(names: Iterable[Any]) -> None:
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"The column {name!r} has a name that is no text; rename it.")


def with_columns(data: Any, columns: Mapping[str, Sequence[str | None]]) -> Any:
    """A frame of the same kind with texts beside its rows; ``data`` itself stays as it is."""
    if isinstance(data, pa.Table):
        for name, values in columns.items():
            data = data.append_column(name, pa.array(values, pa.string()))
        return data
    if isinstance(data, list):
        rows = zip(*columns.values(), strict=True)
        return [
            {**row, **dict(zip(columns, values, strict=True))}
            for row, values in zip(data, rows, strict=True)
        ]
    if hasattr(data, "assign"):
        return data.assign(**{name: list(values) for name, values in columns.items()})
    import polars

    added = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    return data.hstack(polars.from_arrow(pa.table(added)))
