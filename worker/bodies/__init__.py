"""Request bodies of the OpenAI API → what to run."""

from collections.abc import Callable, Mapping
from typing import Any

from worker.bodies.body import ChatPrompt, ParsedBody, Prompt, TextPrompt, TokenPrompt
from worker.bodies.chat import parse_chat
from worker.bodies.completion import parse_completion

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
