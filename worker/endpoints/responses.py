"""Answers and errors in the OpenAI API's shapes, as the lines of the result files.

Ids are derived from the job and the line number, so a line that is computed again after a crash
keeps its id.
"""

import hashlib
from typing import Any

import orjson

from engine.requests import Completion, Output, PositionLogprobs, TokenLogprob
from worker.endpoints import CHAT
from worker.problems import Problem

NEVER_RUN = {
    "batch_cancelled": "This line was not run: the batch was cancelled.",
    "batch_expired": "This line was not run: the batch's completion window ended.",
    "batch_failed": "This line was not run: the batch failed.",
}


def _digest(job_id: str, line: int) -> str:
    return hashlib.blake2b(f"{job_id}:{line}".encode(), digest_size=16).hexdigest()


def request_id(job_id: str, line: int) -> str:
    """The ``id`` of an input line's output or error line."""
    return f"batch_req_{_digest(job_id, line)}"


def answer_line(job_id: str, line: int, custom_id: str, body: dict[str, Any]) -> bytes:
    """An output line around a response body; the body gets this line's own id."""
    digest = _digest(job_id, line)
    prefix = "chatcmpl-" if body["object"] == "chat.completion" else "cmpl-"
    return _line(digest, custom_id, 200, {"id": prefix + digest, **body})


def problem_line(job_id: str, problem: Problem, status: int = 400) -> bytes:
    """An error line that was answered with an error: bad input, or a failure to run it."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {
        "message": problem.message,
        "type": kind,
        "param": problem.param,
        "code": problem.code,
        "line": problem.line,
    }
    digest = _digest(job_id, problem.line)
    return _line(digest, problem.custom_id, status, {"error": error})


def never_run_line(job_id: str, line: int, custom_id: str | None, code: str) -> bytes:
    """An error line of a request that was never executed; ``code`` is a key of `NEVER_RUN`."""
    return orjson.dumps(
        {
            "id": request_id(job_id, line),
            "custom_id": custom_id,
            "response": None,
            "error": {"code": code, "message": NEVER_RUN[code]},
        }
    )


def _line(digest: str, custom_id: str | None, status: int, body: dict[str, Any]) -> bytes:
    response = {"status_code": status, "request_id": f"req_{digest}", "body": body}
    return orjson.dumps(
        {
            "id": f"batch_req_{digest}",
            "custom_id": custom_id,
            "response": response,
            "error": None,
        }
    )


def response_body(
    endpoint: str, model: str, completion: Completion, created: int
) -> dict[str, Any]:
    """A response body without its ``id``: `answer_line` adds each duplicate's own.

    Args:
        endpoint: the batch's endpoint.
        completion: one that ran: it has outputs, all finished by ``stop`` or ``length``.
        created: Unix seconds.
    """
    chat = endpoint == CHAT
    choice = _chat_choice if chat else _text_choice
    return {
        "object": "chat.completion" if chat else "text_completion",
        "created": created,
        "model": model,
        "choices": [choice(output) for output in completion.outputs],
        "usage": usage(
            len(completion.prompt_token_ids), completion.completion_tokens, completion.cached_tokens
        ),
        "system_fingerprint": None,
    }


def usage(prompt: int, answer: int, cached: int) -> dict[str, Any]:
    """The usage object of one response. Counts of tokens."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": prompt + answer,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def as_duplicate(body: dict[str, Any]) -> dict[str, Any]:
    """The same answer for another line: its whole prompt counts as cached."""
    count = body["usage"]
    return {
        **body,
        "usage": usage(count["prompt_tokens"], count["completion_tokens"], count["prompt_tokens"]),
    }


def _chat_choice(output: Output) -> dict[str, Any]:
    logprobs = None
    if output.logprobs is not None:
        logprobs = {"content": [_chat_position(at) for at in output.logprobs], "refusal": None}
    return {
        "index": output.index,
        "message": {"role": "assistant", "content": output.text, "refusal": None},
        "logprobs": logprobs,
        "finish_reason": output.finish_reason,
    }


def _chat_position(position: PositionLogprobs) -> dict[str, Any]:
    top = [_chat_token(token) for token in position.top]
    return {**_chat_token(position.chosen), "top_logprobs": top}


def _chat_token(token: TokenLogprob) -> dict[str, Any]:
    return {"token": token.token, "logprob": _logprob(token), "bytes": list(token.bytes)}


def _logprob(token: TokenLogprob) -> float:
    """JSON has no infinity; OpenAI writes -9999.0 for a probability of nought."""
    return max(token.logprob, -9999.0)


def _text_choice(output: Output) -> dict[str, Any]:
    logprobs = None
    if output.logprobs is not None:
        logprobs = _text_logprobs(output.logprobs)
    return {
        "index": output.index,
        "text": output.text,
        "logprobs": logprobs,
        "finish_reason": output.finish_reason,
    }


def _text_logprobs(positions: tuple[PositionLogprobs, ...]) -> dict[str, Any]:
    """The older form of log-probabilities: parallel arrays; offsets count characters."""
    offsets: list[int] = []
    at = 0
    for position in positions:
        offsets.append(at)
        at += len(position.chosen.token)
    top = [{token.token: _logprob(token) for token in position.top} for position in positions]
    return {
        "tokens": [position.chosen.token for position in positions],
        "token_logprobs": [_logprob(position.chosen) for position in positions],
        "top_logprobs": top if any(top) else None,
        "text_offset": offsets,
    }
