"""Results find the rows that they belong to."""

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.datasets.joining import join_rows
from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.results import read_results
from storage.datasets.values.origins import Origin
from storage.errors import InputMismatch, ResultNotUnderstood


def answered(line: int, text: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    body = {"object": "chat.completion", "choices": [{**choice, "finish_reason": "stop"}]}
    response = {"status_code": 200, "request_id": "r", "body": body}
    result = {"id": "b", "custom_id": f"line-{line}", "response": response, "error": None}
    return orjson.dumps(result) + b"\n"


def failed(line: int) -> bytes:
    error = {"message": "bad", "type": "t", "param": "p", "code": "c", "line": line}
    response = {"status_code": 400, "request_id": "r", "body": {"error": error}}
    result = {"id": "b", "custom_id": f"line-{line}", "response": response, "error": None}
    return orjson.dumps(result) + b"\n"


def test_a_row_that_could_not_be_sent_says_why(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"fine\nl\xe4tin\nfine\n")
    outputs = [answered(1, "A"), answered(3, "B")]
    records = list(join_rows(open_source(path), outputs, [failed(2)]))
    assert [record.result.text for record in records] == ["A", None, "B"]
    problem = records[1].result.error
    assert problem is not None
    assert problem.code == "unreadable_row"
    assert problem.message == (
        "The line is not UTF-8 text: it has the byte 0xE4, which is not UTF-8, at column 2."
    )
    assert records[1].fields == {"prompt": "l\ufffdtin"}


@given(st.lists(st.sampled_from(["blank", "answered", "failed", "missing"]), min_size=1))
def test_every_row_gets_its_own_result(
    tmp_path_factory: pytest.TempPathFactory, fates: list[str]
) -> None:
    path = tmp_path_factory.mktemp("join") / "in"
    lines = ["" if fate == "blank" else f"prompt {n}" for n, fate in enumerate(fates, 1)]
    path.write_text("\n".join(["prompt 0", *lines]))
    outputs = [answered(1, "answer 0")]
    errors = []
    for n, fate in enumerate(fates, 1):
        if fate == "answered":
            outputs.append(answered(n + 1, f"answer {n}"))
        elif fate == "failed":
            errors.append(failed(n + 1))
    records = list(join_rows(open_source(path), outputs, errors))
    kept = [(0, "answered"), *((n, f) for n, f in enumerate(fates, 1) if f != "blank")]
    assert len(records) == len(kept)
    for record, (n, fate) in zip(records, kept, strict=True):
        assert record.fields["prompt"] == f"prompt {n}"
        assert record.result.text == (f"answer {n}" if fate == "answered" else None)
        code = record.result.error.code if record.result.error else None
        assert code == {"answered": None, "failed": "c", "missing": "no_result"}[fate]


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_results_are_read_however_the_file_is_cut(size: int) -> None:
    data = answered(1, "A") + b"\n \x1f\n" + answered(2, "B") + failed(3).rstrip()
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    results = list(read_results(pieces))
    assert [(result.row, result.text) for result in results] == [(1, "A"), (2, "B"), (3, None)]


@pytest.mark.parametrize(
    "line",
    [
        b'{"custom_id": null, "response": {"status_code": 400, "body": {"error": {"code": "c"}}},'
        b' "error": null, "tidemill": {"line": 7}}',
        # As earlier versions wrote it.
        b'{"custom_id": null, "response": {"status_code": 400, "body": {"error": {"code": "c",'
        b' "line": 7}}}, "error": null}',
    ],
)
def test_an_error_without_an_id_is_told_by_its_line(line: bytes) -> None:
    (result,) = read_results([line])
    assert result.row == 7
    assert result.error is not None
    assert result.error.code == "c"


def test_a_line_that_is_no_result_is_an_error() -> None:
    results = read_results([answered(1, "A"), b"<html>\n"])
    assert next(results).text == "A"
    with pytest.raises(ResultNotUnderstood, match="a line that is no result"):
        next(results)


def test_results_of_a_table_that_the_service_read_are_not_taken_for_lines(tmp_path: Path) -> None:
    """It numbers the rows, from row-1; the lines of the file are others, as it has a header."""
    (tmp_path / "in.csv").write_text("prompt,n\na,1\nb,2\n")
    source = open_source(tmp_path / "in.csv")
    by_row = [answered(n, "A").replace(b"line-", b"row-") for n in (1, 2)]
    with pytest.raises(InputMismatch, match="'row-1' is that of no row"):
        list(join_rows(source, by_row, []))
    extra = b'"tidemill": {"line": 2, "file": "in.csv", "row": 2}'
    keyed = b'{"custom_id": "k", "error": {"code": "c", "message": "m"}, %s}\n' % extra
    (result,) = read_results([keyed])
    assert (result.row, result.origin) == (None, Origin("in.csv", 2))
    with pytest.raises(InputMismatch, match="'k' is that of no row"):
        list(join_rows(source, [], [keyed]))
