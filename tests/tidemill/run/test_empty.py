"""A table without rows has an empty output and no batch."""

import io
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from storage.datasets.readers.kinds import open_source
from storage.datasets.request_lines import RequestOptions
from tidemill.client import Client
from tidemill.exits import ExitCode, of_batch
from tidemill.run.jobs import Order, Outcome, run_whole
from tidemill.run.progress import reporter
from tidemill.run.session import Session
from tidemill.run.targets import plan_target

SCHEMA = pa.schema([("id", pa.int64()), ("prompt", pa.string())])


def ran(client: Client, path: Path, output: Path | None = None) -> Outcome:
    source = open_source(path)
    before = len(list(client.batches()))
    with reporter(Console(file=io.StringIO()), quiet=True) as quiet:
        outcome = run_whole(
            Session(client, path.parent),
            source,
            Order.of(source, RequestOptions()),
            plan_target(path, source.kind, output=output),
            quiet,
        )
    assert len(list(client.batches())) == before
    batch = outcome.batch
    assert of_batch(batch.status, batch.request_counts.failed) is ExitCode.OK
    assert (outcome.summary.rows, outcome.summary.failed) == (0, 0)
    return outcome


@pytest.mark.parametrize("name", ["in.parquet", "in.csv"])
def test_as_parquet_it_has_all_columns(client: Client, tmp_path: Path, name: str) -> None:
    pq.write_table(SCHEMA.empty_table(), tmp_path / "in.parquet")
    (tmp_path / "in.csv").write_text("id,prompt\n\n")
    outcome = ran(client, tmp_path / name, tmp_path / "out.parquet")
    assert outcome.summary.output == str(tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 0
    assert table.column_names == ["id", "prompt", "answer", "finish_reason", "error"]
    assert table.schema.field("id").type == (pa.int64() if name == "in.parquet" else pa.string())


def test_as_lines_it_is_an_empty_file_and_old_errors_are_gone(
    client: Client, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_text("prompt\n")
    (tmp_path / "in.errors.jsonl").write_text("of an earlier run")
    ran(client, tmp_path / "in.csv")
    assert (tmp_path / "in.output.jsonl").read_bytes() == b""
    assert not (tmp_path / "in.errors.jsonl").exists()
