"""Lines of the output file and of the error file, in the shapes of OpenAI's Batch API.

What is ours stands beside those, under the one key ``tidemill``: the number of a line at fault, and
of a dataset the file and the row in it.

Ids are derived from the job and the line number, so a line that is computed again after a crash
keeps its id.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

from storage.datasets.values.origins import Origin, described
from worker.problems import Problem

NOTHING: Mapping[str, Any] = {}
NEVER_RUN = {
    "batch_cancelled": "This line was not run: the batch was cancelled.",
    "batch_expired": "This line was not run: the batch's completion window ended.",
    "batch_failed": "This line was not run: the batch failed.",
}


def _digest(job_id: str, line: int) -> str:
    return hashlib.blake2b(f"{job_id}:{line}".encode(), digest_size=16).hexdigest()


def result_id(job_id: str, line: int) -> str:
    """The ``id`` of an input line's output or error line."""
    return f"batch_req_{_digest(job_id, line)}"


def output_line(
    job_id: str, line: int, custom_id: str, body: dict[str, Any], id_prefix: str
) -> bytes:
    """The output line around a response body.

    Args:
        line: the input's line number, from 1.
        body: without its ``id``; it gets this line's own, which begins with ``id_prefix``.
    """
    digest = _digest(job_id, line)
    return _with_response(digest, custom_id, 200, {"id": id_prefix + digest, **body})


def problem_line(
    job_id: str, problem: Problem, status: int = 400, origin: Origin | None = None
) -> bytes:
    """The error line of bad input, or of a request that could not be run (a ``status`` of 500)."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {
        "message": problem.message,
        "type": kind,
        "param": problem.param,
        "code": problem.code,
    }
    digest = _digest(job_id, problem.line)
    ours = {"tidemill": {"line": problem.line, **described(origin)}}
    return _with_response(digest, problem.custom_id, status, {"error": error}, ours)


def never_run_line(
    job_id: str, line: int, custom_id: str | None, code: str, origin: Origin | None = None
) -> bytes:
    """The error line of a request that was never run; ``code`` is a key of `NEVER_RUN`."""
    return orjson.dumps(
        {
            "id": result_id(job_id, line),
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": NEVER_RUN[code]},
            "tidemill": {"line": line, **described(origin)},
        }
    )


def _with_response(
    digest: str,
    custom_id: str | None,
    status: int,
    body: dict[str, Any],
    more: Mapping[str, Any] = NOTHING,
) -> bytes:
    response = {"status_code": status, "request_id": f"req_{digest}", "body": body}
    return orjson.dumps(
        {
            "id": f"batch_req_{digest}",
            "custom_id": custom_id,
            "response": response,
            "error": None,
            **more,
        }
    )
