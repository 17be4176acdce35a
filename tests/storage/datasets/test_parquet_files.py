"""Parquet as other programs write it: what their metadata says."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from columns.results import answered

from storage.datasets.joining import OrderedResults
from storage.datasets.readers.kinds import open_source
from storage.datasets.values.results import ResultColumns
from storage.datasets.writers.parquet import write_joined

NAMES = ResultColumns.named("answer")


@pytest.mark.parametrize(
    "schema_of_another",
    ["org.apache.spark.sql.parquet.row.metadata", "parquet.avro.schema", "avro.schema"],
)
def test_a_schema_of_the_old_columns_is_not_kept(tmp_path: Path, schema_of_another: str) -> None:
    old = {"type": "struct", "fields": [{"name": "prompt", "type": "string"}]}
    kept = {b"org.apache.spark.version": b"3.5.1", b"mine": b"\x00\xff"}
    table = pa.table({"prompt": ["a"]}).replace_schema_metadata(
        {schema_of_another: str(old), **kept}
    )
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
