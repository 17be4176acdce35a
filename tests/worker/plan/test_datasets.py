"""Jobs whose input is a dataset: in place, or an uploaded table. Planned, run, retried, stopped."""

import gzip
import io
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.database.states import JobState
from storage.datasets.inputs.allowed import AllowedUris
from storage.datasets.inputs.listing import list_files
from storage.datasets.inputs.snapshots import write_snapshot
from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.objects import object_keys
from storage.registry import files
from storage.registry.files import NewFile

TEXT = "/v1/completions"
BODY = {"prompt": "{{ text }}", "max_tokens": 2, "temperature": 0}


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def create(bench: Any, data: bytes, dataset: dict[str, Any] | None, **options: Any) -> str:
    """A job over an uploaded file, whatever is in it."""
    worker, file_id = bench.worker, new_id("file")
    key = object_keys.upload("default", file_id)
    info = worker.store.put(key, data)
    file = files.insert(
        worker.database,
        NewFile(file_id, "default", "batch", "in", len(data), key, info.etag, ""),
    )
    said = options if dataset is None else {**options, "dataset": dataset}
    new = NewJob("default", TEXT, "24h", 86_400.0, file, options=said)
    return jobs.create_job(worker.database, new).job.id


def create_in_place(bench: Any, folder: Path, dataset: dict[str, Any], **options: Any) -> str:
    """A job over the files of a folder."""
    uri = folder.as_uri()
    found = list_files(
        bench.worker.settings.storage, AllowedUris.of([("default", uri)]), "default", [uri]
    )
    with bench.worker.store.writer("snapshot") as writer:
        write_snapshot(writer, [uri], found)
    with bench.worker.store.reader("snapshot") as stream:
        return create(bench, stream.read(), {"input_uri": [uri], **dataset}, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two days of three rows, the second of which has no text on the second day."""
    for day, texts in ((1, ["a b", "c", "d"]), (2, ["e", None, "f"])):
        place = tmp_path / "in" / f"day={day}"
        place.mkdir(parents=True)
        rows = parquet(id=[f"{day}-{n}" for n in range(3)], text=texts)
        (place / "rows.parquet").write_bytes(rows)
    return tmp_path / "in"


def test_a_dataset_in_place_is_planned_and_run(bench: Any, folder: Path) -> None:
    template = {**BODY, "prompt": "day {{ day }} {{ text }}"}
    job_id = create_in_place(bench, folder, {"template": template, "key": "id"})
    job = bench.finish(job_id)
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 6, 0)
    results = bench.read(job.out_key)
    assert [row["custom_id"] for row in results] == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]
    assert {row["response"]["body"]["choices"][0]["finish_reason"] for row in results} == {"stop"}
    texts = {(request.prompt, request.params.max_tokens) for request in bench.lab.submitted}
    assert len(texts) == 6
    assert {tokens for _, tokens in texts} == {2}


def test_a_bad_row_fails_the_batch_and_is_reported_with_its_file(bench: Any, folder: Path) -> None:
    job = bench.plan(create_in_place(bench, folder, {"column": "text", "key": "id"}))
    assert (job.state, job.n_invalid, job.n_lines) == (JobState.FAILED, 1, 6)
    (error,) = job.errors
    file = f"{folder.as_uri()}/day=2/rows.parquet"
    assert error == {
        "code": "unreadable_row",
        "message": "The column 'text' is null.",
        "param": None,
        "line": 5,
        "tidemill": {"file": file, "row": 2},
    }
    report = files.load(bench.worker.database, job.report_file_id)
    assert bench.read(report.object_key) == [error]


def test_skipped_rows_and_failed_ones_have_their_place_in_error_lines(
    bench: Any, folder: Path
) -> None:
    template = {**BODY, "prompt": "{{ text or (' x' * 99) }}"}
    dataset = {"template": template, "key": "id"}
    job = bench.finish(create_in_place(bench, folder, dataset, on_invalid="skip"))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 5, 1)
    (error,) = bench.read(job.err_key)
    file = f"{folder.as_uri()}/day=2/rows.parquet"
    assert error["custom_id"] == "2-1"
    assert error["response"]["body"]["error"]["code"] == "context_length_exceeded"
    assert error["tidemill"] == {"line": 5, "file": file, "row": 2}


def test_failed_rows_are_retried(bench: Any, folder: Path) -> None:
    dataset = {"column": "text", "key": "id"}
    first = bench.finish(create_in_place(bench, folder, dataset, on_invalid="skip"))
    again = NewJob(
        "default",
        TEXT,
        "24h",
        86_400.0,
        files.load(bench.worker.database, first.input_file_id),
        options=first.options,
        retry_of=first.id,
    )
    job = bench.finish(jobs.create_job(bench.worker.database, again).job.id)
    assert (job.state, job.n_lines, job.n_err) == (JobState.COMPLETED, 1, 1)
    (error,) = bench.read(job.err_key)
    assert (error["custom_id"], error["tidemill"]["row"]) == ("2-1", 2)


def test_doubled_keys_are_refused_with_both_lines(bench: Any, folder: Path) -> None:
    job = bench.plan(
        create_in_place(bench, folder, {"template": {"prompt": "x {{ text }}"}, "key": "day"})
    )
    assert [error["line"] for error in job.errors] == [2, 3, 5, 6]
    assert {error["code"] for error in job.errors} == {"duplicate_custom_id"}
    assert [error["tidemill"]["row"] for error in job.errors] == [2, 3, 2, 3]
    first = f"{folder.as_uri()}/day=2/rows.parquet"
    assert job.errors[3]["message"] == (
        f"The custom_id of this line was used before, on row 1 of {first}."
    )


def test_a_file_that_changed_refuses_the_plan(bench: Any, folder: Path) -> None:
    job_id = create_in_place(bench, folder, {"template": BODY})
    (folder / "day=2" / "rows.parquet").write_bytes(parquet(text=["other"]))
    job = bench.plan(job_id)
    (error,) = job.errors
    assert (job.state, error["code"]) == (JobState.FAILED, "input_modified")
    assert error["param"] == "tidemill.input_uri"
    assert "day=2/rows.parquet' was changed or deleted" in error["message"]


def test_a_job_that_is_stopped_before_it_is_planned_tells_every_row(
    bench: Any, folder: Path
) -> None:
    job_id = create_in_place(bench, folder, {"template": BODY, "key": "id"})
    jobs.request_stop(bench.worker.database, "default", job_id)
    job = bench.finish(job_id)
    errors = bench.read(job.err_key)
    assert (job.state, job.n_cancelled) == (JobState.CANCELLED, 6)
    assert [row["custom_id"] for row in errors] == ["1-0", "1-1", "1-2", "2-0", "2-1", "2-2"]
    assert [row["tidemill"]["row"] for row in errors] == [1, 2, 3, 1, 2, 3]


@pytest.mark.parametrize(
    ("data", "dataset"),
    [
        (parquet(prompt=["a", "b"]), None),
        (b"prompt,x\na,1\nb,2\n", None),
        (gzip.compress(b"prompt;x\na;1\nb;2\n"), None),
        (b"q,x\na,1\nb,2\n", {"name": "t.csv", "column": "q"}),
        (b"prompt\na\nb\n", {"name": "t.csv"}),
        (b'{"q": "a"}\n{"q": "b"}\n', {"name": "t.jsonl", "template": {"prompt": "{{ q }}"}}),
        (b"a\nb\n", {"name": "t", "format": "text"}),
    ],
)
def test_an_uploaded_table_is_read_as_one(
    bench: Any, data: bytes, dataset: dict[str, Any] | None
) -> None:
    job = bench.finish(create(bench, data, dataset))
    assert (job.state, job.n_ok, job.errors) == (JobState.COMPLETED, 2, None)
    assert [row["custom_id"] for row in bench.read(job.out_key)] == ["row-1", "row-2"]


@pytest.mark.parametrize("name", ["t.csv", "t.parquet"])
def test_lines_of_requests_stay_such_whatever_they_are_called(
    bench: Any, line: Any, name: str
) -> None:
    data = orjson.dumps(line("a")) + b"\n\n" + orjson.dumps(line("b", [])) + b"\n"
    job = bench.finish(create(bench, data, {"name": name}))
    assert (job.n_ok, job.n_err) == (1, 1)
    (error,) = bench.read(job.err_key)
    assert error["tidemill"] == {"line": 3}


def test_a_column_that_is_not_there_is_said_in_terms_of_the_api(bench: Any) -> None:
    job = bench.plan(create(bench, parquet(x=["a"]), None))
    (error,) = job.errors
    assert (job.state, error["code"]) == (JobState.FAILED, "input_not_understood")
    assert "it has x. Name the prompts' column with tidemill.column." in error["message"]
    job = bench.plan(create(bench, parquet(x=["a"]), {"template": BODY}))
    (error,) = job.errors
    assert (error["code"], error["param"]) == ("invalid_template", "tidemill.template.prompt")


@pytest.mark.parametrize("fate", ["poison", "cancelled"])
def test_lines_that_fail_while_they_run_tell_their_row(
    bench: Any, tmp_path: Path, fate: str
) -> None:
    """Their place is in the plan, since nobody reads the dataset again."""
    lake = tmp_path / "in"
    lake.mkdir()
    (lake / "a.parquet").write_bytes(parquet(tokens=[[5, 6]]))
    (lake / "b.parquet").write_bytes(parquet(tokens=[[7], [999], [8]]))  # which ends the engine
    template = {"prompt": "{{ tokens }}", "max_tokens": 2, "temperature": 0}
    job_id = create_in_place(bench, lake, {"template": template})
    if fate == "cancelled":
        bench.plan(job_id)
        jobs.request_stop(bench.worker.database, "default", job_id)
    job = bench.finish(job_id)
    errors = bench.read(job.err_key)
    places = [(error["tidemill"]["file"][-9:], error["tidemill"]["row"]) for error in errors]
    every = [("a.parquet", 1), ("b.parquet", 1), ("b.parquet", 2), ("b.parquet", 3)]
    assert places == (every if fate == "cancelled" else [("b.parquet", 2)])
    assert job.n_ok == len(every) - len(places)
