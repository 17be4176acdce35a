"""Responses and result lines, as the openai package reads them."""

from dataclasses import replace
from typing import Any

import orjson
from openai.types import Completion as OpenAICompletion
from openai.types.chat import ChatCompletion

from engine.requests import Completion, FinishReason, Output, PositionLogprobs, TokenLogprob
from worker.endpoints import chat, completions
from worker.endpoints.endpoint import Endpoint
from worker.endpoints.response_fields import as_duplicate
from worker.endpoints.result_lines import never_run_line, output_line, problem_line
from worker.problems import Problem


def _token(text: str, logprob: float = -0.5) -> TokenLogprob:
    return TokenLogprob(1, text, logprob, text.encode())


_REASONS: tuple[FinishReason, ...] = ("stop", "length")


def _completion(*, logprobs: bool = False, top: bool = True) -> Completion:
    best = (_token("é"), _token("b", float("-inf"))) if top else ()
    positions = tuple(PositionLogprobs(_token(text), best) for text in ("é", "!"))
    return Completion(
        request_id="r",
        prompt_token_ids=(1, 2, 3),
        outputs=tuple(
            Output(index, (4, 5), "é!", reason, positions if logprobs else None)
            for index, reason in enumerate(_REASONS)
        ),
        cached_tokens=2,
    )


def _response(endpoint: Endpoint, completion: Completion) -> dict[str, Any]:
    """The response body of an output line."""
    body = endpoint.respond(completion, "smollm2", 1_700_000_000)
    line = orjson.loads(output_line("batch_1", 7, "row-7", body, endpoint.id_prefix))
    assert list(line) == ["id", "custom_id", "response", "error"]
    assert line["id"].startswith("batch_req_")
    assert line["custom_id"] == "row-7"
    assert line["error"] is None
    assert line["response"]["status_code"] == 200
    assert line["response"]["request_id"]
    found: dict[str, Any] = line["response"]["body"]
    return found


def test_a_chat_response_parses_as_openais_type() -> None:
    body = _response(chat.ENDPOINT, _completion(logprobs=True))
    parsed = ChatCompletion.model_validate(body, strict=True)
    assert parsed.id.startswith("chatcmpl-")
    assert [choice.finish_reason for choice in parsed.choices] == ["stop", "length"]
    assert parsed.choices[0].message.content == "é!"
    assert parsed.choices[0].message.refusal is None
    assert parsed.usage is not None
    assert parsed.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 2},
    }
    logprobs = parsed.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].bytes == [195, 169]
    assert [token.logprob for token in logprobs.content[0].top_logprobs] == [-0.5, -9999.0]


def test_a_text_response_parses_as_openais_type() -> None:
    body = _response(completions.ENDPOINT, _completion(logprobs=True))
    parsed = OpenAICompletion.model_validate(body, strict=True)
    assert parsed.id.startswith("cmpl-")
    logprobs = parsed.choices[1].logprobs
    assert logprobs is not None
    assert logprobs.tokens == ["é", "!"]
    assert logprobs.text_offset == [0, 1]
    assert logprobs.top_logprobs == [{"é": -0.5, "b": -9999.0}] * 2


def test_an_echo_begins_with_the_prompt_and_its_tokens() -> None:
    completion = replace(
        _completion(logprobs=True),
        prompt_logprobs=(None, PositionLogprobs(_token("û?", -2.0), (_token("!", -1.0),))),
        prompt_start=_token("<s>", 0.0),
    )
    body = completions.echo(completions.respond(completion, "m", 1), completion, "û?")
    best = {"é": -0.5, "b": -9999.0}
    for choice in body["choices"]:
        assert choice["text"] == "û?é!"
        # As OpenAI has it, though its package says that there are no nulls.
        assert choice["logprobs"] == {
            "tokens": ["<s>", "û?", "é", "!"],
            "token_logprobs": [None, -2.0, -0.5, -0.5],
            "top_logprobs": [None, {"!": -1.0}, best, best],
            "text_offset": [0, 0, 2, 3],
        }


def test_an_echo_without_logprobs_is_text_alone() -> None:
    body = completions.echo(completions.respond(_completion(), "m", 1), _completion(), "Say: ")
    assert [choice["text"] for choice in body["choices"]] == ["Say: é!"] * 2
    assert body["choices"][0]["logprobs"] is None
    assert body["usage"]["prompt_tokens"] == 3


def test_no_logprobs_asked_for_is_null() -> None:
    assert _response(chat.ENDPOINT, _completion())["choices"][0]["logprobs"] is None
    text = _response(completions.ENDPOINT, _completion(logprobs=True, top=False))
    assert text["choices"][0]["logprobs"]["top_logprobs"] is None


def test_a_duplicate_has_the_same_choices_and_its_whole_prompt_cached() -> None:
    body = chat.respond(_completion(), "smollm2", 1)
    copy = as_duplicate(body)
    assert copy["choices"] == body["choices"]
    assert copy["usage"]["prompt_tokens_details"] == {"cached_tokens": 3}
    first = orjson.loads(output_line("batch_1", 1, "a", body, "chatcmpl-"))
    second = orjson.loads(output_line("batch_1", 2, "b", copy, "chatcmpl-"))
    assert first["id"] != second["id"]
    assert first["response"]["body"]["id"] != second["response"]["body"]["id"]


def test_ids_stay_the_same_when_a_line_is_computed_again() -> None:
    body = chat.respond(_completion(), "smollm2", 1)
    assert output_line("batch_1", 1, "a", body, "chatcmpl-") == output_line(
        "batch_1", 1, "a", body, "chatcmpl-"
    )


def test_a_bad_line_carries_its_number_and_reason() -> None:
    problem = Problem(12, "invalid_type", "Wrong.", "temperature", "row")
    line = orjson.loads(problem_line("batch_1", problem))
    assert line["response"]["status_code"] == 400
    assert line["error"] is None
    assert line["response"]["body"] == {
        "error": {
            "message": "Wrong.",
            "type": "invalid_request_error",
            "param": "temperature",
            "code": "invalid_type",
        }
    }
    assert line["tidemill"] == {"line": 12}


def test_a_line_that_was_never_run_has_no_response() -> None:
    line = orjson.loads(never_run_line("batch_1", 3, "row", "batch_expired"))
    assert line["response"] is None
    assert line["error"]["code"] == "batch_expired"
    assert line["error"]["message"]
    assert line["tidemill"] == {"line": 3}
