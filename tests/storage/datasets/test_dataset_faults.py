"""Rows and files of a dataset that cannot be used: each is named, with the reason."""

import gzip
import io
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

from storage.datasets.dataset_lines import Dataset, DatasetFile
from storage.datasets.inputs import remote
from storage.datasets.inputs.remote import Ranges
from storage.datasets.values.dataset_options import DatasetOptions
from storage.datasets.values.origins import Origins
from storage.datasets.values.sources import Limits
from storage.errors import (
    InputModified,
    InputNotUnderstood,
    ObjectStoreUnavailable,
    StorageError,
    TooManyLines,
)

TEMPLATE = "{{ id }}: {{ text }}"


def parquet(columns: dict[str, Any] | pa.Table, **options: Any) -> bytes:
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def hollow(data: bytes) -> bytes:
    """A Parquet file of which nothing but the footer is left."""
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    return b"PAR1" + b"\0" * (footer - 4) + data[footer:]


def zstd(data: bytes) -> bytes:
    return bytes(pa.compress(data, "zstd", asbytes=True))


def requests(dataset: Any) -> list[dict[str, Any]]:
    return [orjson.loads(line.data) for line in dataset.lines()]


TABLES = {
    "t.parquet": parquet({"id": [1, 2, 3], "text": ["row 1", "row 2", "row 3"]}),
    "t.jsonl": b'{"id": 1, "text": "row 1"}\n{"id": 2, "text": "row 2"}\n',
    "t.csv": b"id,text\n1,row 1\n",
}


def test_rows_that_cannot_be_sent_carry_the_reason(folder: Any) -> None:
    folder.put("t.csv", b'id,text\n1,a\n2\n\n"3,b\n4,\xff\n,c\n5,d,e\n6,"f\ng"\n7\n')
    found = requests(folder.dataset("t.csv", template=TEMPLATE, key="id"))
    assert [(each["custom_id"], each.get("tidemill", {}).get("problem")) for each in found] == [
        ("1", None),
        (None, "The row has 1 fields, the header 2. It is on line 3."),
        (None, "Something other than a delimiter follows a closing quote. It is on line 5."),
        (
            "4",
            "The column 'text' is not UTF-8 text; of older Windows programs: iconv -f "
            "WINDOWS-1252 -t UTF-8 It is on line 6.",
        ),
        (None, "The key column 'id' is empty; a custom_id is a text or a number."),
        (None, "The row has 3 fields, the header 2. It is on line 8."),
        ("6", None),
        (None, "The row has 1 fields, the header 2. It is on line 11."),
    ]


def test_bad_lines_of_json_and_texts_that_are_not_utf8(folder: Any) -> None:
    folder.put("a.jsonl", b'{"id": 1, "text": NaN}\n{"id": 2, "x": NaN}\n[1]\n{broken')
    bad, good, array, broken = folder.dataset("a.jsonl", template=TEMPLATE).lines()
    assert (bad.data[:4], array.data, broken.data) == (b'{"id', b"[1]", b"{broken")
    assert orjson.loads(good.data)["body"]["messages"][0]["content"] == "2: "
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    folder.put("b.parquet", parquet(pa.table({"text": texts})))
    first, second, third = requests(folder.dataset("b.parquet", template="{{ text }}"))
    assert second["tidemill"]["problem"] == "The text in 'text' is not UTF-8."
    assert ["tidemill" in first, "tidemill" in third] == [False, False]


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("t.parquet", b"PAR1 and then nothing", "damaged Parquet"),
        ("t.parquet", TABLES["t.parquet"][:-20], "damaged Parquet"),
        ("t.parquet", hollow(TABLES["t.parquet"]), "damaged"),
        ("t.parquet", b"PARE" + b"\0" * 40 + b"PARE", "encrypted"),
        ("t.parquet", TABLES["t.csv"], "no Parquet file"),
        ("t.parquet", gzip.compress(TABLES["t.csv"], mtime=0), "no Parquet file"),
        ("t.csv", TABLES["t.parquet"], "binary file"),
        ("t.csv", b"id,text,id\n1,a,2\n", "two columns"),
        ("t.jsonl.gz", gzip.compress(TABLES["t.jsonl"], mtime=0)[:-12], "cut off"),
        ("t.jsonl.zst", zstd(TABLES["t.jsonl"])[:-5], "cut off|damaged"),
        ("t.jsonl.zst", zstd(TABLES["t.jsonl"]) + b"garbage", "damaged|cut off"),
        ("t.jsonl", b"{}\n\0\0\0", "binary file"),
        ("t.json", b'[\n{"text": 1},\n{"text": 2}\n]', "one JSON document"),
        ("t.json", b'[{"text": 1}, {"text": 2}]\n', "one JSON document"),
        ("t.json", b'{\n"text": 1\n}\n', "one JSON document"),
    ],
)
def test_files_that_cannot_be_read_are_named(
    folder: Any, name: str, data: bytes, reason: str
) -> None:
    folder.put(name, data)
    for options in ({"template": TEMPLATE}, {"column": "text"}):
        with pytest.raises(StorageError, match=reason) as caught:
            list(folder.dataset(name, **options).lines())
        assert folder.root in str(caught.value)


def test_an_encrypted_column_is_said_to_be_one(folder: Any) -> None:
    class Kms(pe.KmsClient):  # type: ignore[misc]  # PyArrow has no types
        def __init__(self, config: Any) -> None:
            pe.KmsClient.__init__(self)

        def wrap_key(self, key: bytes, name: str) -> bytes:
            return key.hex().encode()

        def unwrap_key(self, key: bytes, name: str) -> bytes:
            return bytes.fromhex(key.decode())

    factory = pe.CryptoFactory(Kms)
    for plain_footer in (True, False):
        keys = pe.EncryptionConfiguration(
            footer_key="f", column_keys={"c": ["text"]}, plaintext_footer=plain_footer
        )
        properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), keys)
        table = pa.table({"id": [1], "text": ["a"]})
        folder.put("t.parquet", parquet(table, encryption_properties=properties))
        with pytest.raises(InputNotUnderstood, match="is an encrypted Parquet file"):
            list(folder.dataset("t.parquet", template=TEMPLATE).lines())


def test_a_file_that_changes_while_a_batch_waits_is_named(lake: Any) -> None:
    lake.put("a.parquet", TABLES["t.parquet"])
    lake.put("b.parquet", TABLES["t.parquet"])
    dataset = lake.dataset("*.parquet", template=TEMPLATE)
    assert len(list(dataset.lines())) == 6
    lake.put("b.parquet", parquet({"id": [1], "text": ["other"]}))
    with pytest.raises(InputModified, match=r"b\.parquet' was changed or deleted"):
        list(dataset.lines())


def test_limits_on_rows_and_on_a_request(folder: Any) -> None:
    folder.put("a.csv", b"id,text\n1,a\n2," + b"x" * 300 + b"\n3,c\n")
    limits = Limits(max_line_bytes=350)
    lines = list(folder.dataset("a.csv", template=TEMPLATE, limits=limits).lines())
    assert [line.error is None for line in lines] == [True, False, True]
    assert "350 bytes" in str(lines[1].error)
    with pytest.raises(TooManyLines, match="2 rows"):
        list(folder.dataset("a.csv", template=TEMPLATE, max_lines=2).lines())


@dataclass(frozen=True)
class Remote:
    """A file in a store that goes away after some reads."""

    data: bytes
    most: int = 10_000
    sizes: list[int] = field(default_factory=list, compare=False)
    version = 1
    buffer_bytes = 65_536

    def open(self) -> AbstractContextManager[BinaryIO]:
        return io.BytesIO(self.data)

    def arrow(self) -> Any:
        return pa.PythonFile(Ranges(self._fetch, len(self.data), {}), mode="r")

    def _fetch(self, start: int, end: int) -> bytes:
        if len(self.sizes) == self.most:
            raise ObjectStoreUnavailable
        self.sizes.append(end - start)
        return self.data[start:end]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """One row group of 4 MB, and nothing of it is kept."""
    monkeypatch.setattr(remote, "SMALL_BYTES", 0)
    monkeypatch.setattr(remote, "TAIL_BYTES", 0)
    monkeypatch.setattr(remote, "WINDOW_BYTES", 0)
    texts = [f"{n * 7919 % 100_003:>1000}" for n in range(2_000)]
    table = {"id": texts, "text": texts}
    pages = {"data_page_size": 16_384, "write_batch_size": 8, "use_dictionary": False}
    return parquet(table, compression="none", **pages)


def rows_of(file: Remote) -> int:
    files = [DatasetFile("a.parquet", len(file.data), file)]
    options = DatasetOptions(template=TEMPLATE)
    dataset = Dataset(lambda: files, options, "/v1/completions", Limits(), 9_999, Origins())
    return sum(1 for _ in dataset.lines())


@pytest.mark.parametrize("reads", [0, 1, 2, 3, 4, 5, 8, 20, 60])
def test_a_store_that_goes_away_is_not_taken_for_damage(large: bytes, reads: int) -> None:
    with pytest.raises(ObjectStoreUnavailable):
        rows_of(Remote(large, reads))


def test_of_a_large_row_group_little_is_read_at_once(large: bytes) -> None:
    file = Remote(large)
    assert rows_of(file) == 2_000
    assert max(file.sizes) < 100_000
    assert sum(file.sizes) < 1.2 * len(large)


def test_small_row_groups_are_fetched_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "SMALL_BYTES", 0)
    texts = [f"{n * 7919 % 100_003:>1000}" for n in range(2_000)]
    data = parquet({"id": texts, "text": texts}, compression="none", row_group_size=1)
    file = Remote(data)
    assert rows_of(file) == 2_000
    assert len(file.sizes) < len(data) / remote.WINDOW_BYTES + 8
