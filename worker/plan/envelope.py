"""The envelope of an input line: ``{"custom_id", "method": "POST", "url", "body"}``.

It is parsed by orjson, which is strict: it refuses NaN, lone surrogates, invalid UTF-8 and nesting
deeper than 1,024, so none of them reaches the planner's second pass.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from storage.datasets.values import unsendable
from storage.datasets.values.rows import PROMPT_FIELDS
from storage.endpoints import endpoint_named
from storage.errors import LineTooLong
from storage.streams.json_faults import json_fault, json_kind
from worker.problems import Problem


@dataclass(frozen=True, slots=True)
class InputLine:
    """A line with a good envelope. ``model`` is never empty."""

    number: int
    custom_id: str
    model: str
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class LineRules:
    """What the envelope of every line of one job must match."""

    endpoint: str
    models: Collection[str]
    default_model: str


def too_long(number: int, error: LineTooLong) -> Problem:
    """The problem of a line beyond the size limit, which was never read."""
    return Problem(number, error.code, str(error))


def check_line(number: int, data: bytes, rules: LineRules) -> InputLine | Problem:
    """Check line ``number`` (from 1); only the first fault that is found is reported."""
    try:
        envelope = orjson.loads(data)
    except orjson.JSONDecodeError:
        fault = json_fault(data) or "the reason is not known"
        message = f"This line is not parseable as valid JSON: {fault}."
        return Problem(number, "invalid_json_line", message)
    if not isinstance(envelope, dict):
        return Problem(number, "invalid_json_line", _no_object(envelope))
    custom_id = envelope.get("custom_id")
    known_id = custom_id if isinstance(custom_id, str) else None
    if problem := unsendable.problem_of(envelope):
        return Problem(number, unsendable.CODE, problem, unsendable.param_of(envelope), known_id)
    wrong = (
        _custom_id_fault(custom_id, envelope)
        or _method_fault(envelope.get("method"))
        or _url_fault(envelope.get("url"), rules)
        or _body_fault(envelope.get("body"), rules)
    )
    if wrong is not None or known_id is None:
        code, message, param = wrong or _missing("custom_id")
        return Problem(number, code, message, param, known_id)
    body = envelope["body"]
    return InputLine(number, known_id, body.get("model") or rules.default_model, body)


Fault = tuple[str, str, str]  # code, message, param


def _missing(param: str) -> Fault:
    return "missing_required_parameter", f"Missing required parameter: '{param}'.", param


def _no_object(value: object) -> str:
    message = f"This line is not a JSON object: it is {json_kind(value)}."
    if isinstance(value, list):
        message += " A file that is one array becomes lines by: jq -c '.[]'"
    return message


def _custom_id_fault(value: object, envelope: Mapping[str, object]) -> Fault | None:
    if value is None or value == "":
        code, message, param = _missing("custom_id")
        found = next((name for name in PROMPT_FIELDS if name in envelope), None)
        if found and "body" not in envelope:
            # A row of data, uploaded without the command line.
            message += (
                f" The line holds '{found}', but is no request of custom_id, method, url and body; "
                "'tidemill submit' makes requests of such lines."
            )
        return code, message, param
    if not isinstance(value, str):
        return "invalid_request", "'custom_id' must be a string.", "custom_id"
    return None


def _method_fault(value: object) -> Fault | None:
    if value is None:
        return _missing("method")
    if value != "POST":
        return "invalid_request", "'method' must be 'POST'.", "method"
    return None


def _url_fault(value: object, rules: LineRules) -> Fault | None:
    if value is None:
        return _missing("url")
    if not isinstance(value, str) or endpoint_named(value) != rules.endpoint:
        message = (
            "The URL provided for this request does not match the batch endpoint "
            f"'{rules.endpoint}'."
        )
        return "url_mismatch", message, "url"
    return None


def _body_fault(value: object, rules: LineRules) -> Fault | None:
    if value is None:
        return _missing("body")
    if not isinstance(value, dict):
        return "invalid_request", "'body' must be an object.", "body"
    model = value.get("model")
    if model is None or model == "":
        model = rules.default_model
    if not isinstance(model, str):
        return "invalid_request", "'body.model' must be a string.", "body.model"
    if model not in rules.models:
        message = f"The model '{model[:200]}' does not exist here."
        return "model_not_found", message, "body.model"
    return None
