"""Every kind of bad envelope, with its code, parameter and line."""

from typing import Any

import orjson
import pytest

from worker.plan.envelope import InputLine, LineRules, check_line
from worker.problems import Problem

RULES = LineRules("/v1/chat/completions", frozenset({"smollm2", "other"}), "smollm2")
GOOD: dict[str, Any] = {
    "custom_id": "a",
    "method": "POST",
    "url": "/v1/chat/completions",
    "body": {"model": "other", "messages": []},
}


def _without(key: str) -> bytes:
    return orjson.dumps({name: value for name, value in GOOD.items() if name != key})


def _with(**changes: object) -> bytes:
    return orjson.dumps({**GOOD, **changes})


def test_a_good_line_gives_its_parts() -> None:
    line = check_line(3, orjson.dumps(GOOD), RULES)
    assert line == InputLine(3, "a", "other", GOOD["body"])


@pytest.mark.parametrize("model", [None, ""])
def test_a_line_that_names_no_model_gets_the_default(model: str | None) -> None:
    line = check_line(1, _with(body={"model": model}), RULES)
    assert isinstance(line, InputLine)
    assert line.model == "smollm2"


@pytest.mark.parametrize(
    ("data", "code", "param", "custom_id"),
    [
        (b"{nope", "invalid_json_line", None, None),
        (b'{"custom_id": "a", "body": {"x": NaN}}', "invalid_json_line", None, None),
        (b'{"custom_id": "\\ud800"}', "invalid_json_line", None, None),
        (b'{"custom_id": "\xff"}', "invalid_json_line", None, None),
        (b"[" * 5000 + b"]" * 5000, "invalid_json_line", None, None),
        (b"[1]", "invalid_json_line", None, None),
        (_without("custom_id"), "missing_required_parameter", "custom_id", None),
        (_with(custom_id=""), "missing_required_parameter", "custom_id", ""),
        (_with(custom_id=7), "invalid_request", "custom_id", None),
        (_without("method"), "missing_required_parameter", "method", "a"),
        (_with(method="GET"), "invalid_request", "method", "a"),
        (_without("url"), "missing_required_parameter", "url", "a"),
        (_with(url="/v1/completions"), "url_mismatch", "url", "a"),
        (_without("body"), "missing_required_parameter", "body", "a"),
        (_with(body=[]), "invalid_request", "body", "a"),
        (_with(body={"model": 3}), "invalid_request", "body.model", "a"),
        (_with(body={"model": "gpt-9"}), "model_not_found", "body.model", "a"),
    ],
)
def test_bad_lines(data: bytes, code: str, param: str | None, custom_id: str | None) -> None:
    problem = check_line(9, data, RULES)
    assert isinstance(problem, Problem)
    assert (problem.line, problem.code, problem.param) == (9, code, param)
    assert problem.custom_id == custom_id
    assert problem.message


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"custom_id": "a", "body": {"x": NaN}}', "valid JSON: NaN at column 34; JSON has"),
        (b'{"custom_id": "\\ud800"}', "half of a surrogate pair, \\ud800, at column 16."),
        (b'{"custom_id": "\xff"}', "the byte 0xFF, which is not UTF-8, at column 16."),
        (b"{'custom_id': 'a'}", "a single quote at column 2; JSON has double quotes."),
        (b'[{"custom_id": "a"}]', "is not a JSON object: it is an array. A file that is one array"),
        (b'"text"', "This line is not a JSON object: it is a string."),
        (b'{"prompt": "Hi"}', "The line holds 'prompt', but is no request"),
        (b'{"messages": []}', "'tidemill submit' makes requests of such lines."),
        (_with(tidemill={"problem": "The field 'prompt' is null."}), "The field 'prompt' is null."),
    ],
)
def test_a_reason_says_what_and_where(data: bytes, message: str) -> None:
    problem = check_line(1, data, RULES)
    assert isinstance(problem, Problem)
    assert message in problem.message


def test_the_reason_that_a_row_carries_keeps_its_custom_id() -> None:
    problem = check_line(7, _with(tidemill={"problem": "x" * 5_000}), RULES)
    assert problem == Problem(7, "unreadable_row", "x" * 1_000, None, "a")


@pytest.mark.parametrize("ours", [None, 5, {}, {"problem": None}, {"problem": ""}])
def test_what_carries_no_reason_is_no_problem(ours: object) -> None:
    assert isinstance(check_line(1, _with(tidemill=ours), RULES), InputLine)


def test_a_url_may_be_written_as_azure_writes_it() -> None:
    assert isinstance(check_line(1, _with(url="/chat/completions"), RULES), InputLine)
    problem = check_line(1, _with(url="/completions"), RULES)
    assert isinstance(problem, Problem)
    assert problem.code == "url_mismatch"


def test_a_missing_parameter_is_reported_in_openais_words() -> None:
    problem = check_line(1, _without("custom_id"), RULES)
    assert isinstance(problem, Problem)
    assert problem.report() == {
        "code": "missing_required_parameter",
        "message": "Missing required parameter: 'custom_id'.",
        "param": "custom_id",
        "line": 1,
    }
