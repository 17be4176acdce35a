"""Shards in a folder: whole, in order, with the input's columns, while a job runs and after."""

import io
import time
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from storage.database.states import JobState
from storage.jobs import jobs
from storage.jobs.reconcile import reconcile
from worker.process.reconciler import tick
from worker.process.threads import WorkerThreads
from worker.run.drain import drain

RESULTS = [
    *("answer", "finish_reason", "prompt_tokens", "cached_tokens", "completion_tokens"),
    *("error_code", "error_message"),
]


@pytest.mark.parametrize("format_", ["parquet", "jsonl"])
def test_every_row_is_in_the_shards_in_order(site: Any, format_: str) -> None:
    rows: list[dict[str, Any]] = [
        *site.ten[:5],
        {"id": "bad", "n": None, "text": "x " * 99},
        *site.ten[5:],
    ]
    output = {"format": format_, "passthrough": ["n", "id"]}
    job = site.finish(site.rows(rows, output=output))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 10, 1)
    found = site.listed()
    assert [(row["custom_id"], row["n"], row["id"]) for row in found] == [
        (f"row-{number}", row["n"], row["id"]) for number, row in enumerate(rows, 1)
    ]
    assert list(found[0]) == ["custom_id", "n", "id", *RESULTS]
    good = found[0]
    assert good["finish_reason"] == "stop"
    assert (good["prompt_tokens"], good["completion_tokens"], good["error_code"]) == (3, 2, None)
    bad = found[5]
    assert (bad["answer"], bad["finish_reason"], bad["prompt_tokens"]) == (None, None, None)
    assert bad["error_code"] == "context_length_exceeded"
    assert "maximum context length" in bad["error_message"]
    outputs = {row["custom_id"]: row for row in site.bench.read(job.out_key)}
    for row in found[:5] + found[6:]:
        choice = outputs[row["custom_id"]]["response"]["body"]["choices"][0]
        assert row["answer"] == choice["text"]
    manifest = site.manifest()
    assert (manifest["state"], manifest["rows"], manifest["rows_total"]) == ("completed", 11, 11)
    assert [column["name"] for column in manifest["columns"]] == list(good)
    names = [f"part-0000{number}.{format_}" for number in range(3)]
    assert site.names() == sorted([*names, "_SUCCESS", "manifest.json"])


def test_plain_requests_have_their_ids_and_results(site: Any, line: Any) -> None:
    lines = [orjson.dumps(line(f"c{n}", [n + 2, 3])) for n in range(5)]
    lines[2:2] = [b"", b"{", b""]
    job = site.finish(site.create(b"\n".join(lines), on_invalid="skip"))
    assert (job.n_ok, job.n_err) == (5, 1)
    found = site.listed()
    assert [row["custom_id"] for row in found] == ["c0", "c1", None, "c2", "c3", "c4"]
    assert [row["error_code"] for row in found][2] == "invalid_json_line"
    assert list(found[0]) == ["custom_id", *RESULTS]


def parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


def test_columns_of_parquet_keep_their_types(site: Any) -> None:
    columns = {
        "text": pa.array(["a", "b", "c", "d", "e"]),
        "day": pa.array([date(2026, 11, 27)] * 5, pa.date32()),
        "at": pa.array([1, 2, None, 4, 5], pa.timestamp("us", "UTC")),
        "price": pa.array([Decimal("1.10")] * 5, pa.decimal128(9, 2)),
        "tags": pa.array([["x"], [], None, ["y", None], []], pa.list_(pa.string())),
        "who": pa.array([{"a": 1, "b": "x"}] * 5),
        "kind": pa.array(["k", "l", "k", None, "l"]).dictionary_encode(),
        "raw": pa.array([b"\x00\xff"] * 5),
    }
    dataset = {"template": {"prompt": "{{ text }}"}, "key": "text"}
    output = {"passthrough": "all"}
    site.finish(site.create(parquet(**columns), dataset=dataset, output=output))
    table = pq.read_table(sorted((site.folder / "out").glob("part-*")))
    assert table.select(list(columns)).to_pylist() == pa.table(columns).to_pylist()
    for name, column in columns.items():
        assert table.schema.field(name).type == column.type, name
    assert table["custom_id"].to_pylist() == list("abcde")


def test_values_of_json_lines_are_numbers_or_text(site: Any) -> None:
    rows = [
        {"text": "a", "n": 1, "f": 1.5, "x": {"a": [1]}, "y": True},
        {"text": "b", "n": None, "f": 2, "x": "s"},
    ]
    site.finish(site.rows(rows, output={"passthrough": "all"}))
    names = ("n", "f", "x", "y")
    assert [[row[name] for name in names] for row in site.listed()] == [
        [1, 1.5, '{"a":[1]}', True],
        [None, 2.0, "s", None],
    ]


def test_columns_that_cannot_be_passed_through_fail_the_plan(site: Any) -> None:
    rows = [{"text": "a", "answer": "b"}]
    refused = {"nope": "no column 'nope'", "answer": "have one of that name", "all": "of that name"}
    for name, words in refused.items():
        passthrough = name if name == "all" else [name]
        job = site.finish(site.rows(rows, place=name, output={"passthrough": passthrough}))
        (error,) = job.errors
        assert (job.state, error["code"]) == (JobState.FAILED, "invalid_output")
        assert error["param"] == "tidemill.passthrough"
        assert words in error["message"]
        assert (site.manifest(name)["state"], site.names(name)) == ("failed", ["manifest.json"])


def readable(folder: Path) -> list[list[str]]:
    """The ids that each of the usual readers finds in the folder's shards, in their order."""
    glob = f"{folder}/part-*.parquet"
    paths = sorted(map(str, folder.glob("part-*.parquet")))
    in_order = duckdb.connect().sql(f"SELECT custom_id FROM read_parquet('{glob}')").fetchall()
    return [
        pyarrow.dataset.dataset(paths).to_table()["custom_id"].to_pylist(),
        pl.read_parquet(glob)["custom_id"].to_list(),
        sorted((row[0] for row in in_order), key=lambda name: int(name[4:])),
        pd.concat(map(pd.read_parquet, paths))["custom_id"].tolist(),
    ]


def test_shards_are_read_while_the_job_runs_and_after(site: Any) -> None:
    bench, job_id = site.bench, site.rows(site.ten)
    bench.plan(job_id)
    assert site.write() == 0, "nothing is settled"
    bench.sql("UPDATE chunk SET not_before = 9e12 WHERE first_line > 4")
    drain(bench.worker, "smollm2")
    assert site.write() == 1
    assert bench.job(job_id).state == JobState.RUNNING
    manifest = site.manifest()
    told = (manifest["state"], manifest["rows_total"], manifest["shards_total"])
    assert told == ("running", 10, 3)
    ids = [f"row-{number}" for number in range(1, 11)]
    assert [row["custom_id"] for row in site.listed()] == ids[:4]
    assert readable(site.folder / "out") == [ids[:4]] * 4
    assert site.finish(job_id).state == JobState.COMPLETED
    assert [row["custom_id"] for row in site.listed()] == ids
    assert readable(site.folder / "out") == [ids] * 4


def test_a_shard_waits_for_all_of_its_chunks_and_for_those_before_it(site: Any) -> None:
    bench, job_id = site.bench, site.rows(site.ten)
    bench.plan(job_id)
    bench.sql("UPDATE chunk SET not_before = 9e12 WHERE first_line = 3")
    drain(bench.worker, "smollm2")
    for state in ("leased", "pending"):
        bench.sql(f"UPDATE chunk SET state = '{state}' WHERE first_line = 3")
        assert site.write() == 0
    assert site.finish(job_id).n_ok == 10
    assert len(site.listed()) == 10


def test_lines_of_a_cancelled_job_are_rows_with_errors(site: Any) -> None:
    bench, job_id = site.bench, site.rows(site.ten)
    bench.plan(job_id)
    jobs.request_stop(bench.worker.database, "default", job_id)
    reconcile(bench.worker.database, max_crashes=3)
    job = site.finish(job_id)
    assert (job.state, job.n_cancelled) == (JobState.CANCELLED, 10)
    assert {row["error_code"] for row in site.listed()} == {"batch_cancelled"}
    assert (site.manifest()["state"], site.manifest()["rows"]) == ("cancelled", 10)
    assert "_SUCCESS" not in site.names()


def test_a_job_that_is_stopped_before_its_plan_has_no_shards(site: Any) -> None:
    job_id = site.rows(site.ten)
    jobs.request_stop(site.bench.worker.database, "default", job_id)
    assert site.finish(job_id).n_cancelled == 10
    assert (site.manifest()["state"], site.manifest()["shards"]) == ("cancelled", [])


def test_a_worker_writes_shards_beside_its_other_work(make_site: Any) -> None:
    site = make_site(reconcile_seconds=0.05)
    job_id = site.rows(site.ten)
    worker = site.bench.worker

    def look() -> None:
        tick(worker)

    threads = WorkerThreads(worker, before=look)
    threads.start()
    try:
        deadline = time.monotonic() + 60
        while "_SUCCESS" not in site.names() and time.monotonic() < deadline:
            time.sleep(0.02)
    finally:
        worker.leaving.set()
        worker.stopping.set()
        assert threads.join(30)
        threads.close_engines()
    assert site.bench.job(job_id).state == JobState.COMPLETED
    assert len(site.listed()) == 10
