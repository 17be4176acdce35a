"""Rows that cannot be sent: their request carries the reason, for the batch's own error line."""

from collections.abc import Mapping
from typing import Any

CODE = "unreadable_row"
MAX_CHARACTERS = 1_000
_OURS, _PROBLEM, _PARAM = "tidemill", "problem", "param"


def with_problem(
    request: Mapping[str, Any], problem: str, param: str | None = None
) -> dict[str, Any]:
    """A request that fails with this reason, and parameter, when its batch is planned."""
    ours = {_PROBLEM: problem} if param is None else {_PROBLEM: problem, _PARAM: param}
    return {**request, _OURS: ours}


def problem_of(request: Mapping[str, Any]) -> str | None:
    """The reason that `with_problem` put into a request."""
    return _text_of(request, _PROBLEM)


def param_of(request: Mapping[str, Any]) -> str | None:
    """The parameter that `with_problem` put into a request."""
    return _text_of(request, _PARAM)


def _text_of(request: Mapping[str, Any], name: str) -> str | None:
    ours = request.get(_OURS)
    text = ours.get(name) if isinstance(ours, dict) else None
    return text[:MAX_CHARACTERS] if isinstance(text, str) and text else None
