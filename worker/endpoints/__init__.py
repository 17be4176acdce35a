"""Request bodies of the OpenAI API → what to run."""

from collections.abc import Callable, Mapping
from typing import Any

from worker.endpoints.chat import parse_chat
from worker.endpoints.completions import parse_completion
from worker.endpoints.options import ChatPrompt, ParsedBody, Prompt, TextPrompt, TokenPrompt

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

PARSERS: Mapping[str, Callable[[Mapping[str, Any]], ParsedBody]] = {
    CHAT: parse_chat,
    COMPLETIONS: parse_completion,
}

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "PARSERS",
    "ChatPrompt",
    "ParsedBody",
    "Prompt",
    "TextPrompt",
    "TokenPrompt",
    "parse_chat",
    "parse_completion",
]
