"""Rows that cannot be sent: their request carries the reason, for the batch's own error line."""

from collections.abc import Mapping
from typing import Any

CODE = "unreadable_row"
MAX_CHARACTERS = 1_000
_OURS, _PROBLEM = "tidemill", "problem"


def with_problem(request: Mapping[str, Any], problem: str) -> dict[str, Any]:
    """A request that fails with this reason when its batch is planned."""
    return {**request, _OURS: {_PROBLEM: problem}}


def problem_of(request: Mapping[str, Any]) -> str | None:
    """The reason that `with_problem` put into a request."""
    ours = request.get(_OURS)
    problem = ours.get(_PROBLEM) if isinstance(ours, dict) else None
    return problem[:MAX_CHARACTERS] if isinstance(problem, str) and problem else None
