"""What the rows of a job have in common, so that earlier jobs of the same kind are found."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

ROWS = 64
_FEWEST_CHARACTERS = 8
_LONGEST = 4_000
_NUMBERS = re.compile(r"\d+")
_LAST_WORD = re.compile(r"\S+\Z")


class Likeness:
    """Looks at the first rows of a job: their system message, and how their prompts begin.

    These are the template that somebody filled in, where there is one.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._system = self._begin = ""

    def add(self, body: Mapping[str, Any]) -> None:
        """Look at a request's body, whatever is in it."""
        if self._rows >= ROWS:
            return
        system, prompt = _texts(body)
        if self._rows == 0:
            self._system, self._begin = system, prompt
        else:
            self._system = _common(self._system, system)
            self._begin = _common(self._begin, prompt)
        self._rows += 1

    @property
    def text(self) -> str:
        """What they have in common; empty where that is hardly anything, or for a single row."""
        if self._rows < 2:
            return self._system
        # The words that begin alike by chance are no part of it.
        begin = _LAST_WORD.sub("", self._begin)
        begin = begin if len(begin) >= _FEWEST_CHARACTERS else ""
        return f"{self._system}\0{begin}" if self._system or begin else ""


def digest(common: str, filename: str) -> str:
    """What is equal for jobs that are alike.

    Args:
        common: what a job's rows have in common.
        filename: of its input, whose name counts where that is nothing; but not its numbers, which
            are often a date.
    """
    text = f"rows\0{common}" if common else f"name\0{_NUMBERS.sub('#', filename)}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _common(one: str, other: str) -> str:
    """What both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    end = next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
    return one[:end]


def _texts(body: Mapping[str, Any]) -> tuple[str, str]:
    """The system message and the last message of a chat, or the prompt of a completion."""
    messages = body.get("messages")
    if not isinstance(messages, list):
        return "", _text(body.get("prompt"))
    chat = [message for message in messages if isinstance(message, dict)]
    system = next((m for m in chat if m.get("role") in ("system", "developer")), {})
    last = chat[-1] if chat else {}
    return _text(system.get("content")), _text(last.get("content"))


def _text(value: object) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""
