"""Parameters that bodies of several endpoints share: sampling options, ignored and refused ones."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from engine.errors import InvalidRequest
from engine.params import SamplingParams
from worker.endpoints.values import (
    Reader,
    boolean,
    integer,
    logit_bias,
    nucleus,
    number,
    stop_strings,
    token_ids,
    unsupported,
)
from worker.errors import BodyError

SAMPLING: Mapping[str, Reader] = {
    "temperature": number,
    "top_p": nucleus,
    "top_k": integer,
    "min_p": number,
    "n": integer,
    "seed": integer,
    "stop": stop_strings,
    "stop_token_ids": token_ids,
    "max_tokens": integer,
    "min_tokens": integer,
    "presence_penalty": number,
    "frequency_penalty": number,
    "repetition_penalty": number,
    "logit_bias": logit_bias,
    "ignore_eos": boolean,
    "skip_special_tokens": boolean,
    "include_stop_str_in_output": boolean,
}

# Accepted for compatibility; none of them changes an output.
IGNORED = frozenset(
    {
        "model",
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "parallel_tool_calls",
    }
)


def read_params(
    body: Mapping[str, Any], own: frozenset[str], extra: Mapping[str, Any]
) -> SamplingParams:
    """The sampling parameters of ``body``.

    Args:
        own: the parameters that the endpoint reads itself.
        extra: the fields of `SamplingParams` that it took from them.

    Raises:
        BodyError: a parameter is unknown, of the wrong type, or out of range.
    """
    options: dict[str, Any] = {"max_tokens": None}
    for name, value in body.items():
        if name in own or name in IGNORED:
            continue
        reader = SAMPLING.get(name)
        if reader is None:
            raise BodyError(
                f"Unknown parameter: '{name[:100]}'.", param=name[:100], code="unknown_parameter"
            )
        if value is not None:
            options[name] = reader(name, value)
    options.update(extra)
    make = _cached_params if all(map(_is_scalar, options.values())) else SamplingParams
    try:
        return make(**options)
    except InvalidRequest as error:
        raise BodyError(str(error), param=error.param, code="invalid_value") from error


# Most lines of a batch have the parameters of the line before, and checking those again would take
# longer than parsing the line. Only scalars are cached, which keeps the cache small. It is typed
# because 1 and 1.0 are equal.
_cached_params = lru_cache(256, typed=True)(SamplingParams)


def _is_scalar(value: object) -> bool:
    return isinstance(value, int | float | None)


def refuse_stream(body: Mapping[str, Any]) -> None:
    """Refuse to stream: a batch has nobody to stream to."""
    for name in ("stream", "stream_options"):
        value = body.get(name)
        if value is not None and value is not False:
            raise unsupported(name, f"'{name}' is not supported in a batch.")


def refuse(body: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse every parameter named in ``allowed`` whose value is not null or listed there."""
    for name, values in allowed.items():
        value = body.get(name)
        if value is not None and not any(_equal(value, each) for each in values):
            raise unsupported(name, f"'{name}' is not supported with this value.")


def _equal(value: Any, other: Any) -> bool:
    # To Python 0 and False are equal; to JSON they are not.
    return type(value) is type(other) and bool(value == other)
