"""What is said of a job that was interrupted, and of several jobs at once."""

from pathlib import Path

import msgspec
import pytest

from storage.datasets.readers.kinds import open_source
from storage.datasets.readers.results import read_results
from storage.datasets.request_lines import RequestOptions
from tidemill.cli.render import reason_line
from tidemill.client.shapes import Batch, Counts
from tidemill.errors import InputError
from tidemill.exits import ExitCode
from tidemill.run.formats import Format
from tidemill.run.jobs import Outcome
from tidemill.run.several import plan_jobs, what_is_left, worst
from tidemill.run.summary import Reason, Summary, group_reasons


def outcome(total: int, failed: int, rest_by: str) -> Outcome:
    counts = Counts(total, total - failed, failed)
    batch = Batch(
        "batch_1", "cancelled", "/v1/chat/completions", "file-1", 1, request_counts=counts
    )
    summary = msgspec.convert(
        dict.fromkeys(("rows", "answered", "failed", "prompt_tokens", "output_tokens"), 0)
        | dict.fromkeys(("tokens_per_second", "output", "errors"))
        | {"batch_id": "batch_1", "status": "cancelled", "seconds": 0.0, "cached_tokens": 0}
        | {"prefix_cache_share": 0.0, "failures": {}, "reasons": []},
        Summary,
    )
    return Outcome(batch, summary, True, rest_by)


@pytest.mark.parametrize(
    ("total", "failed", "rest_by", "not_begun", "said"),
    [
        (5, 2, "tidemill retry x", [], "To run the rest: tidemill retry x."),
        (5, 0, "", [], "Interrupted; every row had been run."),
        (0, 0, "", [], "Interrupted before any row was run."),
        (5, 0, "", ["b", "c"], "Not begun: b, c; run those again."),
        (5, 2, "a", ["b"], "To run the rest: a. Not begun: b; run those again."),
    ],
)
def test_what_to_do_after_an_interruption(
    total: int, failed: int, rest_by: str, not_begun: list[str], said: str
) -> None:
    assert what_is_left(outcome(total, failed, rest_by), not_begun) == said


@pytest.mark.parametrize(
    ("codes", "code"),
    [([0, 0], 0), ([0, 3], 3), ([3, 5], 5), ([5, 4, 3], 4), ([], 0)],
)
def test_the_exit_code_of_several_is_the_worst(codes: list[int], code: int) -> None:
    assert worst(ExitCode(each) for each in codes) == code


def failed(number: int, code: str, message: str, param: str | None = None) -> bytes:
    error = {"code": code, "message": message, "param": param}
    return msgspec.json.encode({"custom_id": f"line-{number}", "error": error}) + b"\n"


def test_rows_that_failed_for_one_reason_stand_together_with_the_first_of_them() -> None:
    lines = [
        failed(4, "missing_required_parameter", "Missing: 'messages'.", "messages"),
        failed(31, "context_length_exceeded", "9000 tokens are too many.", "messages"),
        failed(32, "context_length_exceeded", "9001 tokens are too many.", "messages"),
        failed(40, "odd_one", "x"),
        failed(50, "odd_one", "y"),
        msgspec.json.encode({"custom_id": "mine", "error": {"message": "x"}}) + b"\n",
    ]
    reasons = group_reasons(read_results(lines))
    assert [(reason.count, reason.row) for reason in reasons] == [
        (2, 31),
        (1, 4),
        (1, 40),
        (1, 50),
        (1, None),
    ]
    assert [reason_line(reason) for reason in reasons] == [
        "  2 × prompt too long (messages), e.g. row 31: 9000 tokens are too many.",
        "  1 × parameter missing (messages), e.g. row 4: Missing: 'messages'.",
        "  1 × odd one, e.g. row 40: x",
        "  1 × odd one, e.g. row 50: y",
        "  1 × unknown, e.g. 'mine': x",
    ]


def test_reasons_without_end_are_gathered_by_their_code() -> None:
    letters = [chr(0x4E00 + number) for number in range(3_000)]
    lines = [failed(number, "odd", text) for number, text in enumerate(letters, 1)]
    reasons: list[Reason] = group_reasons(read_results(lines))
    assert sum(reason.count for reason in reasons) == 3_000
    assert len(reasons) == 1_001


@pytest.mark.parametrize("field", ["answer", "finish_reason", "error"])
@pytest.mark.parametrize("format", [None, *Format])
def test_a_field_of_a_row_is_in_the_way_only_of_an_output_that_holds_it(
    tmp_path: Path, field: str, format: Format | None
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"prompt": "2+2?", "%s": "4"}\n' % field.encode())
    for named in ("answer", "reply"):
        (job,) = plan_jobs(
            [path],
            [open_source(path)],
            RequestOptions(),
            output=None,
            errors=None,
            format=format,
            answer_column=named,
        )
        assert job.target.columns.answer == named
        if named == "reply" or format is Format.OPENAI:
            assert b"2+2?" in b"".join(job.order.upload.chunks())
        else:
            with pytest.raises(InputError, match=f"has a field '{field}' already"):
                list(job.order.upload.chunks())
