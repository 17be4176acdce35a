"""A reading ends when its heartbeat says so, whatever the files hold."""

import gzip
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.readers import parquet_batches
from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.parquet_batches import FEW_ROWS, schema_of
from storage.datasets.values.files import LocalFile
from storage.datasets.values.sources import Kind, Limits, Source

REQUEST = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":{}}\n'
BLANK = b" " * 997 + b"\n"
MANY = 4_000  # lines, of which a few reads hold but a part
BEATS = 8


class Ended(Exception):
    """What a heartbeat raises."""


def beating(times: int) -> Callable[[], None]:
    """A heartbeat that ends the reading after so many times."""
    left = iter(range(times))

    def beat() -> None:
        if next(left, None) is None:
            raise Ended

    return beat


@pytest.mark.parametrize("mark", [b"", b"\xff\xfe"], ids=["utf-8", "utf-16"])
@pytest.mark.parametrize(
    ("kind", "head", "rest"),
    [
        (Kind.JSONL, b"", b"{}" + BLANK),
        (Kind.JSONL, b'{"p":"x"}\n', BLANK),
        (Kind.REQUESTS, REQUEST, BLANK),
        (Kind.TEXT, b"Why?\n", BLANK),
        (Kind.CSV, b"p,q\n1,2\n", BLANK),
    ],
)
def test_lines_that_are_no_rows_are_read_no_longer(
    folder: Any, kind: Kind, head: bytes, rest: bytes, mark: bytes
) -> None:
    data = head + rest * MANY
    if mark:
        data = mark + data.decode().encode("utf-16-le")
    folder.put("in", gzip.compress(data, 1))
    column = None if kind in (Kind.REQUESTS, Kind.TEXT) else "p"
    dataset = folder.dataset("in", format=kind, column=column)
    with pytest.raises(Ended):
        list(replace(dataset, heartbeat=beating(BEATS)).lines())


@pytest.fixture
def old_times(tmp_path: Path) -> Path:
    """Three batches of rows with times of 96 bits."""
    times = pa.array([0] * 3 * FEW_ROWS, pa.timestamp("s"))
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"a": times, "b": times}), path, use_deprecated_int96_timestamps=True)
    return path


def test_a_look_through_old_times_ends(old_times: Path) -> None:
    source = Source(LocalFile(old_times), "in", Kind.PARQUET)
    with pytest.raises(Ended):
        schema_of(replace(source, limits=Limits(heartbeat=beating(2))))
    assert schema_of(replace(source, limits=Limits(heartbeat=beating(3)))).names == ["a", "b"]


def test_old_times_beyond_the_limit_are_not_looked_through(old_times: Path) -> None:
    limits = Limits(max_decoded_bytes=FEW_ROWS, heartbeat=beating(1))
    schema = schema_of(Source(LocalFile(old_times), "in", Kind.PARQUET, limits=limits))
    assert schema.field("a").type == pa.timestamp("us")


def test_the_search_for_a_column_at_fault_ends(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"prompt": ["x"] * 3 * FEW_ROWS, "b": [1] * 3 * FEW_ROWS}), path)
    file = open_source(path).file
    with pytest.raises(Ended):
        parquet_batches._column_at_fault(file, Limits(heartbeat=beating(5)))
    whole = Limits(heartbeat=beating(6))
    assert parquet_batches._column_at_fault(file, whole) is None
    few = Limits(max_decoded_bytes=FEW_ROWS, heartbeat=beating(1))
    assert parquet_batches._column_at_fault(file, few) is None
