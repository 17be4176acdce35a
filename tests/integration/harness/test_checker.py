"""The checker finds every way in which a job can break its promises, and nothing in a good one."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
import pytest

from integration.harness import tiny
from integration.harness.checker import Evidence, ResultFile, judge

LINES = 8
BAD = 5  # its line's number; the others are answered
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}


def asked(number: int) -> dict[str, Any]:
    prompt = " ".join(tiny.WORDS[place] for place in (7, 9, 10 * number))
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 2}
    return {"custom_id": f"line-{number}", "method": "POST", "body": body}


def answered(number: int, **changes: Any) -> dict[str, Any]:
    body = {
        "model": "tiny",
        "choices": [{"index": 0, "text": tiny.answer(asked(number)["body"])}],
        "usage": USAGE,
    }
    response = {"status_code": 200, "body": body | changes}
    return {
        "id": f"req_{number}",
        "custom_id": f"line-{number}",
        "response": response,
        "error": None,
    }


def refused(number: int, code: str = "invalid_value") -> dict[str, Any]:
    body = {"error": {"code": code, "message": "…"}}
    return {
        "id": f"req_{number}",
        "custom_id": f"line-{number}",
        "response": {"status_code": 400, "body": body},
        "error": None,
    }


def never_run(number: int, code: str = "batch_cancelled") -> dict[str, Any]:
    return {
        "id": f"req_{number}",
        "custom_id": f"line-{number}",
        "response": None,
        "error": {"code": code, "message": "…"},
    }


def file_of(lines: list[dict[str, Any]]) -> ResultFile | None:
    if not lines:
        return None
    content = b"".join(orjson.dumps(line) + b"\n" for line in lines)
    return ResultFile(len(content), hashlib.sha256(content).hexdigest(), content)


def evidence(
    output: list[dict[str, Any]], errors: list[dict[str, Any]], status: str = "completed"
) -> Evidence:
    """Of a batch whose own numbers are those of its files."""
    batch = {
        "id": "batch_1",
        "status": status,
        "request_counts": {
            "total": LINES,
            "completed": len(output),
            "failed": len(errors),
        },
        "usage": {"input_tokens": 3 * len(output), "output_tokens": 2 * len(output)},
        "output_file_id": "file_1" if output else None,
        "error_file_id": "file_2" if errors else None,
    }
    content = b"".join(orjson.dumps(asked(number)) + b"\n" for number in range(LINES))
    refusals = {f"line-{BAD}": "invalid_value"}
    return Evidence(content, batch, file_of(output), file_of(errors), refusals)


def good() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    return [answered(number) for number in range(LINES) if number != BAD], [refused(BAD)]


def kinds(found: Evidence) -> dict[str, int]:
    return {violation.kind: violation.count for violation in judge(found, tiny.answer).violations}


def test_a_good_job_passes() -> None:
    verdict = judge(evidence(*good()), tiny.answer)
    assert verdict.violations == ()
    assert (verdict.lines, verdict.answered, verdict.false_poison) == (LINES, LINES - 1, 0)


def test_a_cancelled_job_passes_with_its_lines_that_never_ran() -> None:
    output = [answered(number) for number in range(4)]
    errors = [never_run(number) for number in range(4, LINES)]
    assert kinds(evidence(output, errors, "cancelled")) == {}
    assert kinds(evidence(output, errors, "expired")) == {"error": 4}
    assert kinds(evidence(output, errors)) == {"error": 4}
    assert kinds(evidence([], [never_run(n) for n in range(LINES)], "cancelled")) == {}


def lose(output: list[Any], errors: list[Any]) -> None:
    del output[2]


def lose_an_error(output: list[Any], errors: list[Any]) -> None:
    errors.clear()


def double(output: list[Any], errors: list[Any]) -> None:
    output.insert(2, output[2])


def double_across_files(output: list[Any], errors: list[Any]) -> None:
    errors.insert(0, refused(0))


def wrong_order(output: list[Any], errors: list[Any]) -> None:
    output[1], output[2] = output[2], output[1]


def swap_answers(output: list[Any], errors: list[Any]) -> None:
    output[1]["response"], output[2]["response"] = output[2]["response"], output[1]["response"]


def invent(output: list[Any], errors: list[Any]) -> None:
    output.append(answered(99))


def other_model(output: list[Any], errors: list[Any]) -> None:
    output[3] = answered(3, model="other")


def refuse_in_vain(output: list[Any], errors: list[Any]) -> None:
    del output[0]
    errors.insert(0, refused(0, "engine_error"))


def answer_a_bad_line(output: list[Any], errors: list[Any]) -> None:
    errors.clear()
    output.insert(BAD, answered(BAD))


def share_an_id(output: list[Any], errors: list[Any]) -> None:
    output[1]["id"] = output[0]["id"]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lose, {"lost": 1}),
        (lose_an_error, {"lost": 1}),
        (double, {"double": 1, "line ids": 1}),
        (double_across_files, {"double": 1, "line ids": 1, "error": 1}),
        (wrong_order, {"order": 1}),
        (swap_answers, {"answer": 2}),
        (invent, {"unknown": 1, "order": 1}),
        (other_model, {"answer": 1}),
        (refuse_in_vain, {"error": 1}),
        (answer_a_bad_line, {"answer": 1}),
        (share_an_id, {"line ids": 1}),
    ],
)
def test_spoilt_files_are_found(
    spoil: Callable[[list[Any], list[Any]], None], found: dict[str, int]
) -> None:
    output, errors = good()
    spoil(output, errors)
    # The batch's own numbers follow the files, so that nothing but the lines gives it away.
    assert kinds(evidence(output, errors)) == found


@pytest.mark.parametrize("name", ["total", "completed", "failed"])
def test_wrong_counts_are_found(name: str) -> None:
    found = evidence(*good())
    found.batch["request_counts"][name] += 1
    assert kinds(found) == {"counts": 1}


def test_wrong_usage_is_found() -> None:
    found = evidence(*good())
    found.batch["usage"]["output_tokens"] -= 1
    assert kinds(found) == {"usage": 1}


def test_a_job_that_failed_or_never_ended_is_found() -> None:
    for status in ("failed", "in_progress", "finalizing"):
        assert "status" in kinds(evidence(*good(), status))


def test_what_another_tenant_sees_is_found() -> None:
    hidden = ("GET /batches/batch_1", 404)
    assert kinds(replace(evidence(*good()), foreign=[hidden, hidden])) == {}
    seen = ("GET /files/file_1", 200)
    assert kinds(replace(evidence(*good()), foreign=[hidden, seen])) == {"tenant": 1}


def test_changed_bytes_are_found() -> None:
    found = evidence(*good())
    assert found.output is not None
    assert kinds(replace(found, earlier=found.hashes)) == {}
    assert kinds(replace(found, earlier=("other", None))) == {"hash": 1}
    assert kinds(replace(found, output=replace(found.output, size=1))) == {"hash": 1}
    assert kinds(replace(found, output=replace(found.output, etag="other"))) == {"hash": 1}
    empty = ResultFile(0, hashlib.sha256(b"").hexdigest(), b"")
    assert kinds(replace(evidence([], []), output=empty)) == {"lost": LINES, "hash": 1}


def test_a_line_that_is_blamed_for_crashes_is_counted_apart() -> None:
    output, errors = good()
    del output[0]
    errors.insert(0, refused(0, "engine_crashed"))
    verdict = judge(evidence(output, errors), tiny.answer)
    assert verdict.false_poison == 1
    assert verdict.violations == ()
