"""A table without rows has an empty output, and nothing is started for it."""

from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tidemill.cli.main import app
from tidemill.errors import InputError

SCHEMA = pa.schema([("id", pa.int64()), ("prompt", pa.string())])


def ran(folder: Path, *arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(app, ("run", *arguments, "--home", str(folder / "home"), "--json"))
    assert done.exit_code == 0, done.output
    assert not (folder / "home").exists(), "no service was started"
    summary: dict[str, object] = orjson.loads(done.stdout)
    return summary


@pytest.mark.parametrize("name", ["in.parquet", "in.csv"])
def test_as_parquet_it_has_all_columns(tmp_path: Path, name: str) -> None:
    pq.write_table(SCHEMA.empty_table(), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("id,prompt\n\n")
    output = tmp_path / "out.parquet"
    summary = ran(tmp_path, str(tmp_path / name), "-o", str(output))
    assert (summary["rows"], summary["failed"], summary["output"]) == (0, 0, str(output))
    table = pq.read_table(output)
    assert table.num_rows == 0
    assert table.column_names == ["id", "prompt", "answer", "finish_reason", "error"]
    assert table.schema.field("id").type == (pa.int64() if name == "in.parquet" else pa.string())


def test_as_lines_it_is_an_empty_file_and_old_errors_are_gone(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\n")
    (tmp_path / "in.errors.jsonl").write_text("of an earlier run")
    ran(tmp_path, str(tmp_path / "in.csv"))
    assert (tmp_path / "in.output.jsonl").read_bytes() == b""
    assert not (tmp_path / "in.errors.jsonl").exists()


def test_there_is_nothing_to_submit(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("prompt\n")
    error = CliRunner().invoke(app, ("submit", str(tmp_path / "in.csv"))).exception
    assert isinstance(error, InputError)
    assert str(error) == "in.csv has no rows; there is nothing to submit."
