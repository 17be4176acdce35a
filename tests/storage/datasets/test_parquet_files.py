"""Parquet as other programs write it: what their metadata says, and lists without messages."""

import io
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from columns.results import answered

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.kinds import open_source
from storage.datasets.request_lines import RequestOptions, request_lines
from storage.datasets.values.results import ResultColumns
from storage.datasets.values.unsendable import problem_of
from storage.datasets.writers.parquet import write_joined
from storage.endpoints import CHAT_COMPLETIONS, COMPLETIONS

NAMES = ResultColumns.named("answer")


@pytest.mark.parametrize(
    "schema_of_another",
    ["org.apache.spark.sql.parquet.row.metadata", "parquet.avro.schema", "avro.schema"],
)
def test_a_schema_of_the_old_columns_is_not_kept(tmp_path: Path, schema_of_another: str) -> None:
    old = {"type": "struct", "fields": [{"name": "prompt", "type": "string"}]}
    kept = {b"org.apache.spark.version": b"3.5.1", b"mine": b"\x00\xff"}
    metadata = {schema_of_another.encode(): str(old).encode(), **kept}
    table = pa.table({"prompt": ["a"]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "in")
    assert schema_of_another.encode() in pq.read_metadata(tmp_path / "in").metadata
    output = io.BytesIO()
    results = OrderedResults([answered("row-1", "A")], [])
    write_joined(open_source(tmp_path / "in"), results, NAMES, output)
    again = pq.ParquetFile(output)
    # Whoever reads the file with Arrow and writes it again passes on what Arrow's schema has.
    assert again.schema_arrow.metadata == kept
    assert again.metadata.metadata.keys() == kept.keys() | {b"ARROW:schema"}
    assert again.schema_arrow.names == ["prompt", *NAMES.all]


EMPTY: list[list[None]] = [[], [None], [None, None]]


@pytest.mark.parametrize("kind", ["struct", "map"])
@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("endpoint", [CHAT_COMPLETIONS, COMPLETIONS])
def test_an_empty_list_of_messages_is_a_row_that_says_so(
    tmp_path: Path, kind: str, system: str | None, endpoint: str
) -> None:
    texts = [("role", pa.string()), ("content", pa.string())]
    message = pa.struct(texts) if kind == "struct" else pa.map_(pa.string(), pa.string())
    fine = {"role": "user", "content": "Hi"}
    rows = [[*EMPTY[1], fine if kind == "struct" else list(fine.items())], *EMPTY]
    pq.write_table(pa.table({"messages": pa.array(rows, pa.list_(message))}), tmp_path / "in")
    options = RequestOptions(system=system, endpoint=endpoint)
    lines = b"".join(request_lines(open_source(tmp_path / "in"), options)).splitlines()
    first, *empty = map(orjson.loads, lines)
    if endpoint == CHAT_COMPLETIONS:
        own = [{"role": "system", "content": system}] if system else []
        assert first["body"] == {"messages": [*own, fine]}
    assert [(each["custom_id"], each["body"], problem_of(each)) for each in empty] == [
        (
            f"row-{number}",
            {},
            "The column 'messages' is an empty list; a prompt is a string or a list of messages.",
        )
        for number in (2, 3, 4)
    ]
