"""A batch's results, joined to the input they came from or as they are."""

import resource
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from columns.results import answered
from msgspec import structs

from storage.datasets.readers.kinds import open_source
from storage.datasets.values.sources import Kind
from tidemill.client import Client, Upload
from tidemill.client.shapes import Batch, BatchExtension, Counts
from tidemill.errors import InputChanged, TidemillError
from tidemill.run.formats import Format
from tidemill.run.outputs import write_results
from tidemill.run.targets import plan_target


def failed(custom_id: str | None, line: int) -> bytes:
    error = {"message": "bad", "type": "t", "param": "p", "code": "c", "line": line}
    response = {"status_code": 400, "request_id": "r", "body": {"error": error}}
    record = {"id": "b", "custom_id": custom_id, "response": response, "error": None}
    return orjson.dumps(record) + b"\n"


def finished(client: Client, output: bytes, errors: bytes) -> Batch:
    """A finished batch whose result files are really there."""

    def uploaded(content: bytes) -> str | None:
        return client.upload(Upload("r.jsonl", lambda: [content])).id if content else None

    return Batch(
        "batch_x",
        "completed",
        "/v1/chat/completions",
        "file-x",
        0,
        output_file_id=uploaded(output),
        error_file_id=uploaded(errors),
    )


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_plain_output_is_the_inputs_fields_with_the_answer(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "a", "id": 18446744073709551616}\n\n{broken\n{"prompt": "b"}\n')
    source = open_source(path)
    batch = finished(client, answered("line-1", "A") + answered("line-4", "B"), failed(None, 3))
    written = write_results(client, batch, source, plan_target(path, source.kind))
    assert written.output == tmp_path / "in.output.jsonl"
    assert written.errors == tmp_path / "in.errors.jsonl"
    assert json_lines(written.output) == [
        {"prompt": "a", "id": 2**64, "answer": "A", "finish_reason": "stop"},
        {"prompt": "b", "answer": "B", "finish_reason": "stop"},
    ]
    assert json_lines(written.errors) == [
        {"error": {"code": "c", "message": "bad", "param": "p", "line": 3}}
    ]


def test_parquet_output_keeps_columns_types_and_failed_rows(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    table = pa.table(
        {
            "prompt": pa.array(["a", None, "c"]),
            "score": pa.array([1.5, 2.5, None], pa.float32()),
            "tags": pa.array([["x"], [], None]),
        }
    )
    pq.write_table(table, path, row_group_size=2)
    source = open_source(path)
    batch = finished(client, answered("row-1", "A") + answered("row-3", "C"), failed("row-2", 2))
    written = write_results(client, batch, source, plan_target(path, source.kind))
    assert written.errors is None
    joined = pq.read_table(tmp_path / "in.output.parquet")
    assert joined.select(table.column_names).equals(table)
    assert joined["answer"].to_pylist() == ["A", None, "C"]
    assert joined["finish_reason"].to_pylist() == ["stop", None, "stop"]
    assert joined["error"].to_pylist() == [None, "bad", None]


def test_json_lines_can_become_parquet(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        b'{"prompt": "a", "n": 1, "mixed": "x"}\n{"prompt": "b", "n": 2.5, "mixed": [1]}\n'
    )
    source = open_source(path)
    target = plan_target(path, source.kind, output=tmp_path / "out.parquet")
    batch = finished(client, answered("line-1", "A") + answered("line-2", "B"), b"")
    write_results(client, batch, source, target)
    assert pq.read_table(tmp_path / "out.parquet").to_pylist() == [
        {"prompt": "a", "n": 1.0, "mixed": "x", "answer": "A", "finish_reason": "stop"}
        | {"error": None},
        {"prompt": "b", "n": 2.5, "mixed": "[1]", "answer": "B", "finish_reason": "stop"}
        | {"error": None},
    ]


def test_batch_lines_are_copied_as_they_are(client: Client, tmp_path: Path) -> None:
    output, errors = answered("x", "A"), failed("y", 2)
    target = plan_target(tmp_path / "in.jsonl", Kind.REQUESTS)
    written = write_results(client, finished(client, output, errors), None, target)
    assert written.output is not None
    assert written.errors is not None
    assert (written.output.read_bytes(), written.errors.read_bytes()) == (output, errors)


def test_without_the_input_the_answer_stands_beside_its_custom_id(
    client: Client, tmp_path: Path
) -> None:
    target = plan_target(tmp_path / "in.jsonl", Kind.REQUESTS, format=Format.PLAIN)
    write_results(client, finished(client, answered("x", "A"), b""), None, target)
    assert json_lines(tmp_path / "in.output.jsonl") == [
        {"custom_id": "x", "answer": "A", "finish_reason": "stop"}
    ]


@pytest.mark.parametrize("answers", [b"", answered("x", "A"), answered("x", "A").rstrip()])
@pytest.mark.parametrize("errors", [b"", failed("y", 2) + failed(None, 4)])
def test_parquet_without_a_join_keeps_failed_rows_with_their_error(
    client: Client, tmp_path: Path, answers: bytes, errors: bytes
) -> None:
    out, copy = tmp_path / "out.parquet", tmp_path / "errors.jsonl"
    target = plan_target(tmp_path / "in.jsonl", Kind.REQUESTS, output=out, errors=copy)
    write_results(client, finished(client, answers, errors), None, target)
    names = ("custom_id", "answer", "finish_reason", "error")
    rows: list[tuple[str | None, ...]] = [("x", "A", "stop", None)] if answers else []
    rows += [("y", None, None, "bad"), (None, None, None, "bad")] if errors else []
    if rows:
        assert pq.read_table(out).to_pylist() == [dict(zip(names, x, strict=True)) for x in rows]
    assert (copy.read_bytes() if copy.exists() else b"") == errors


def test_no_empty_files_and_no_old_ones(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in.errors.jsonl").write_text("of an earlier run")
    target = plan_target(tmp_path / "in.jsonl", Kind.REQUESTS)
    written = write_results(client, finished(client, answered("x", "A"), b""), None, target)
    assert written.errors is None
    assert [path.name for path in tmp_path.iterdir()] == ["in.output.jsonl"]


def test_a_result_file_that_is_none_leaves_no_output(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a\nb\n")
    source = open_source(path)
    batch = finished(client, answered("line-1", "A") + b"<html>\n", b"")
    with pytest.raises(TidemillError, match="no result"):
        write_results(client, batch, source, plan_target(path, source.kind))
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_a_disk_that_is_full_is_an_error_that_says_so(client: Client, tmp_path: Path) -> None:
    limit = 16 * 1024 * 1024
    batch = finished(client, answered("x", "A" * (limit + 1)), b"")
    target = plan_target(tmp_path / "in.jsonl", Kind.REQUESTS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(TidemillError, match="cannot be written: File too large"):
            write_results(client, batch, None, target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        *(ValueError("no"), OverflowError("far"), MemoryError(), KeyError("x"), RecursionError()),
        *(pa.ArrowNotImplementedError("type"), UnicodeEncodeError("utf-8", "\ud800", 0, 1, "lone")),
        *(PermissionError(13, "no"), FileNotFoundError(2, "gone"), OSError(28, "full")),
    ],
)
@pytest.mark.parametrize("format", ["openai", "plain", "parquet"])
def test_whatever_fails_while_writing_is_one_clear_error(
    client: Client, tmp_path: Path, error: Exception, format: str
) -> None:
    class Failing(Client):
        def download(self, file_id: str) -> AbstractContextManager[Iterator[bytes]]:
            def pieces() -> Iterator[bytes]:
                yield answered("line-1", "A")
                raise error

            return nullcontext(pieces())

    path = tmp_path / "in.txt"
    path.write_text("a\nb\n")
    batch = Batch("batch_x", "completed", "", "", 0, output_file_id="file-x")
    target = plan_target(path, Kind.TEXT, format=Format(format))
    with pytest.raises(TidemillError, match=r"^The results cannot be written: .+") as caught:
        write_results(Failing(client.url), batch, open_source(path), target)
    assert "\n" not in str(caught.value)
    assert [left.name for left in tmp_path.iterdir()] == ["in.txt"]


LATE = {
    "ns": pa.array([1_700_000_000_123_456_789], pa.int64()).view(pa.timestamp("ns")),
    "far": pa.array([253_402_300_800_000], pa.int64()).view(pa.timestamp("ms")),
    "time": pa.array([1], pa.int64()).view(pa.time64("ns")),
}


@pytest.mark.parametrize("format", ["plain", "parquet"])
def test_times_that_python_cannot_hold_are_written(
    client: Client, tmp_path: Path, format: str
) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"prompt": ["a"], **LATE}), path)
    source = open_source(path)
    target = plan_target(path, source.kind, format=Format(format))
    written = write_results(client, finished(client, answered("row-1", "A"), b""), source, target)
    assert written.output is not None
    if format == "parquet":
        again = pq.read_table(written.output)
        assert again.select(["prompt", *LATE]).equals(pq.read_table(path))
    else:
        (row,) = json_lines(written.output)
        assert [row[name] for name in LATE] == [
            "2023-11-14T22:13:20.123456789",
            "10000-01-01T00:00:00",
            "00:00:00.000000001",
        ]


@pytest.mark.parametrize("format", ["plain", "parquet"])
@pytest.mark.parametrize(
    ("more", "kept", "said"),
    [
        (b"", {"metadata": {"input_sha256": "0" * 64}}, "is not the file that batch_x was made of"),
        (b"", {"request_counts": Counts(total=3)}, "has 2 rows, and the batch had 3"),
        (answered("line-3", "C"), {}, "has no row 3"),
        (answered("a", "C"), {}, "custom_id 'a' is that of no row"),
    ],
)
def test_results_of_another_input_are_not_joined(
    client: Client, tmp_path: Path, format: str, more: bytes, kept: dict[str, Any], said: str
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a\nb\n")
    target = plan_target(path, Kind.TEXT, format=Format(format))
    output = answered("line-1", "A") + answered("line-2", "B") + more
    batch = structs.replace(finished(client, output, b""), **kept)
    with pytest.raises(InputChanged, match=said):
        write_results(client, batch, open_source(path), target)
    assert [left.name for left in tmp_path.iterdir()] == ["in.txt"]


def test_the_failed_lines_of_a_retry_are_joined_to_the_whole_input(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "in.txt"
    path.write_text("a\nb\n")
    batch = finished(client, answered("line-2", "B"), b"")
    extension = BatchExtension(retry_of="batch_gone")
    batch = structs.replace(batch, request_counts=Counts(total=1), tidemill=extension)
    target = plan_target(path, Kind.TEXT)
    written = write_results(client, batch, open_source(path), target)
    assert written.output is not None
    assert [row["prompt"] for row in json_lines(written.output)] == ["b"]


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("format", ["plain", "parquet"])
def test_a_field_of_the_input_is_never_replaced_by_an_answer(
    client: Client, tmp_path: Path, name: str, format: str
) -> None:
    path = tmp_path / name
    if name == "in.parquet":
        pq.write_table(pa.table({"prompt": ["a"], "answer": ["mine"]}), path)
    else:
        path.write_bytes(b'{"prompt": "a", "answer": "mine"}\n')
    source = open_source(path)
    target = plan_target(path, source.kind, format=Format(format))
    batch = finished(client, answered("line-1", "A"), b"")
    with pytest.raises(TidemillError, match="has a field 'answer' already"):
        write_results(client, batch, source, target)
