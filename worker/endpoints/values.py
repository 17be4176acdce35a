"""Readers of single JSON values.

Each takes a parameter's name and value, and returns the value, typed, or raises a `BodyError`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from worker.errors import BodyError

Reader = Callable[[str, Any], Any]

MAX_STOP_CHARACTERS = 1_024
MAX_LOGIT_BIASES = 1_024
SMALLEST_NUCLEUS = 1e-6  # less than the most probable token of any vocabulary has

# Variables of a chat template that only the server sets, beside every ``…_token``.
RESERVED_TEMPLATE_ARGS = frozenset(
    {
        "add_generation_prompt",
        "additional_special_tokens",
        "chat_template",
        "documents",
        "messages",
        "raise_exception",
        "self",
        "strftime_now",
        "template",
        "tools",
    }
)

_JSON_NAMES: Mapping[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


def wrong_type(name: str, expected: str, value: object) -> BodyError:
    """The error of a value of the wrong JSON type, in OpenAI's words."""
    got = _JSON_NAMES.get(type(value), "something else")
    return BodyError(
        f"Invalid type for '{name}': expected {expected}, but got {got} instead.",
        param=name,
        code="invalid_type",
    )


def missing(name: str, why: str = "") -> BodyError:
    """The error of a required parameter that is not there, perhaps with a reason behind it."""
    message = f"Missing required parameter: '{name}'.{why and ' '}{why}"
    return BodyError(message, param=name, code="missing_required_parameter")


def refuse_prompt_of(other: str, body: Mapping[str, Any], name: str, endpoint: str) -> None:
    """Raise where a body lacks its prompt and holds that of another endpoint."""
    if body.get(name) is None and body.get(other) is not None:
        raise missing(name, f"The endpoint is {endpoint}, while the body holds '{other}'.")


def unsupported(name: str, message: str) -> BodyError:
    """The error of a parameter that is known but not supported."""
    return BodyError(message, param=name, code="unsupported_parameter")


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(name, "a boolean", value)
    return value


def integer(name: str, value: Any) -> int:
    # A bool is an int to Python, and 3.0 is an integer to JSON Schema.
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(name, "an integer", value)
    return value


def number(name: str, value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise wrong_type(name, "a number", value)
    return float(value)


def nucleus(name: str, value: Any) -> float:
    """A share of probability; 0, which OpenAI's API allows, keeps the most probable token alone."""
    share = number(name, value)
    return SMALLEST_NUCLEUS if share == 0 else share


def string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, "a string", value)
    return value


def mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise wrong_type(name, "an object", value)
    return value


def array(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise wrong_type(name, "an array", value)
    return value


def stop_strings(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return (_stop_string(name, value),)
    if not isinstance(value, list):
        raise wrong_type(name, "a string or an array of strings", value)
    return tuple(_stop_string(f"{name}[{i}]", item) for i, item in enumerate(value))


def _stop_string(name: str, value: Any) -> str:
    text = string(name, value)
    if len(text) > MAX_STOP_CHARACTERS:
        raise BodyError(
            f"'{name}' is longer than {MAX_STOP_CHARACTERS:,} characters.",
            param=name,
            code="invalid_value",
        )
    return text


def token_ids(name: str, value: Any) -> tuple[int, ...]:
    return tuple(integer(f"{name}[{i}]", item) for i, item in enumerate(array(name, value)))


def logit_bias(name: str, value: Any) -> dict[int, float]:
    biases: dict[int, float] = {}
    if len(mapping(name, value)) > MAX_LOGIT_BIASES:
        raise BodyError(
            f"'{name}' has more than {MAX_LOGIT_BIASES:,} entries.",
            param=name,
            code="invalid_value",
        )
    for token, bias in value.items():
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise BodyError(f"'{name}' maps token ids; '{token[:40]}' is none.", param=name)
        biases[int(token)] = number(f"{name}.{token}", bias)
    return biases


def template_args(name: str, value: Any) -> dict[str, bool | int | float | str | None]:
    """Variables for a chat template: scalars under names that the server does not set itself."""
    arguments = mapping(name, value)
    for variable, item in arguments.items():
        param = f"{name}.{variable[:100]}"
        if variable in RESERVED_TEMPLATE_ARGS or variable.endswith("_token"):
            raise BodyError(f"'{param}' cannot be set.", param=param, code="invalid_value")
        if not isinstance(item, bool | int | float | str | None):
            raise wrong_type(param, "a boolean, a number, a string or null", item)
    return arguments
