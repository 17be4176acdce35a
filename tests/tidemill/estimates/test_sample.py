"""Some rows of an input, spread evenly over it."""

import gzip
import json
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.readers.kinds import open_source
from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.sources import Source
from tidemill.errors import UsageError
from tidemill.estimates.sample import _Chosen, sample_of


@given(st.integers(1, 60), st.integers(0, 500), st.integers(0, 5))
def test_one_row_of_each_stretch(count: int, more: int, seed: int) -> None:
    total = count + more
    places = sorted(_Chosen(count, total, seed).places())
    assert len(places) == count
    for number, place in enumerate(places):
        assert number * total // count <= place < (number + 1) * total // count


def ids(source: Source, count: int, seed: int = 0) -> list[str]:
    upload = sample_of(source, RequestOptions(), count, seed)
    first, again = (b"".join(upload.chunks()) for _ in range(2))
    assert first == again, "an upload may be sent twice"
    return [orjson.loads(row)["custom_id"] for row in first.splitlines()]


def text(path: Path) -> None:
    path.write_text("\n\n".join(f"Row {number}?" for number in range(40)))


def requests(path: Path) -> None:
    rows = ({"custom_id": f"{n}", "method": "POST", "url": "/v1/x", "body": {}} for n in range(40))
    path.write_bytes(gzip.compress("\r\n".join(map(json.dumps, rows)).encode()))


def table(path: Path) -> None:
    pq.write_table(pa.table({"prompt": [f"Row {number}?" for number in range(40)]}), path)


@pytest.mark.parametrize(
    ("write", "name"), [(text, "in.txt"), (requests, "in.jsonl.gz"), (table, "in.parquet")]
)
def test_rows_keep_their_ids_and_order(tmp_path: Path, write: object, name: str) -> None:
    assert callable(write)
    write(tmp_path / name)
    source = open_source(tmp_path / name)
    every, some = ids(source, 40), ids(source, 10)
    assert len(set(every)) == 40
    assert [each for each in every if each in some] == some
    assert ids(source, 10) == some
    assert ids(source, 10, seed=1) != some
    with pytest.raises(UsageError, match="has 40 rows; 41 cannot be taken"):
        sample_of(source, RequestOptions(), 41)
