"""Bad inputs: what fails the whole batch, and what becomes error lines."""

import codecs
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from engine.errors import TokenizerError
from storage.database.states import JobState
from storage.registry import models

Line = Callable[..., dict[str, Any]]
MakeLines = Callable[[int], list[dict[str, Any]]]


def _ids(rows: list[dict[str, Any]]) -> list[str]:
    return [row["custom_id"] for row in rows]


def test_skipped_bad_lines_become_error_lines_with_number_and_reason(
    bench: Any, line: Line, make_lines: MakeLines
) -> None:
    lines: list[Any] = make_lines(10)
    lines[3] = b"{nope"
    lines[5] = line("row0")
    lines[7] = line("row7", temperature=9)
    lines[8] = line("row8", "w " * 70)
    job = bench.finish(bench.create(lines, on_invalid="skip"))
    assert job.state == JobState.COMPLETED
    assert (job.n_ok, job.n_err, job.n_invalid) == (6, 4, 4)
    errors = bench.read(job.err_key)
    found = [(row["tidemill"]["line"], row["response"]["body"]["error"]) for row in errors]
    assert [(line, error["code"]) for line, error in found] == [
        (4, "invalid_json_line"),
        (6, "duplicate_custom_id"),
        (8, "invalid_value"),
        (9, "context_length_exceeded"),
    ]
    assert _ids(errors) == [None, "row0", "row7", "row8"]
    assert _ids(bench.read(job.out_key)) == ["row0", "row1", "row2", "row4", "row6", "row9"]


def test_a_bad_envelope_fails_the_batch_and_a_bad_body_does_not(
    make_bench: Any, line: Line
) -> None:
    bench = make_bench(max_reported_errors=2)
    bad = [b"{", line("a"), line("a"), {"custom_id": "b"}, line("c", temperature=9)]
    job = bench.finish(bench.create(bad))
    assert job.state == JobState.FAILED
    assert (job.n_invalid, len(job.errors)) == (3, 2)
    assert job.errors[0] == {
        "code": "invalid_json_line",
        "message": "This line is not parseable as valid JSON: it is cut off at column 2 "
        "(jq -c makes lines of a document that goes over several).",
        "param": None,
        "line": 1,
    }
    report = bench.read(f"results/{job.id}/1/report.jsonl")
    assert [(row["line"], row["code"]) for row in report] == [
        (1, "invalid_json_line"),
        (3, "duplicate_custom_id"),
        (4, "missing_required_parameter"),
    ]
    assert job.report_file_id is not None
    job = bench.finish(bench.create([line("a"), line("c", temperature=9)]))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 1, 1)


def test_an_input_in_utf16_is_planned_as_any_other(bench: Any, line: Line) -> None:
    text = b"\r\n".join(map(orjson.dumps, [line("a"), line("b"), line("ü")])).decode()
    job = bench.finish(bench.create([codecs.BOM_UTF16_BE + text.encode("utf-16-be")]))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 3, 0)
    assert _ids(bench.read(job.out_key)) == ["a", "b", "ü"]


def test_a_batch_of_nothing_but_errors_completes_without_an_output_file(bench: Any) -> None:
    job = bench.finish(bench.create([b"{", b"["], on_invalid="skip"))
    assert (job.state, job.n_ok, job.n_err) == (JobState.COMPLETED, 0, 2)
    assert job.out_file_id is None
    assert bench.lab.starts == 0


@pytest.mark.parametrize(("lines", "code"), [([], "empty_file"), ([b"", b""], "empty_batch")])
def test_an_empty_input_fails_even_where_bad_lines_are_skipped(
    bench: Any, lines: list[bytes], code: str
) -> None:
    job = bench.finish(bench.create(lines, on_invalid="skip"))
    assert job.state == JobState.FAILED
    assert [error["code"] for error in job.errors] == [code]


def test_an_input_that_is_gone_fails_the_batch(bench: Any, line: Line) -> None:
    job_id = bench.create([line("a")])
    bench.worker.store.delete(bench.job(job_id).input_key)
    assert bench.finish(job_id).errors[0]["code"] == "input_modified"


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_only_the_lines_of_an_unusable_model_end_with_its_fault(
    bench: Any, line: Line, on_invalid: str
) -> None:
    models.add(bench.worker.database, "other", "/srv/models/bad")
    load = bench.worker.load_text_model

    def load_one(name: str, source: str) -> Any:
        if name == "other":
            raise TokenizerError("/srv/models/bad/tokenizer.json cannot be read.")
        return load(name, source)

    object.__setattr__(bench.worker, "load_text_model", load_one)
    lines = [line("a"), line("b", model="other"), line("c", model="other")]
    job = bench.finish(bench.create(lines, on_invalid=on_invalid))
    assert (job.state, job.n_ok, job.n_err, job.errors) == (JobState.COMPLETED, 1, 2, None)
    errors = bench.read(job.err_key)
    assert _ids(errors) == ["b", "c"]
    for row in errors:
        error = row["response"]["body"]["error"]
        assert (error["code"], error["param"]) == ("model_unavailable", "model")
        assert error["message"] == (
            "The model 'other' cannot be loaded: other/tokenizer.json cannot be read."
        )
