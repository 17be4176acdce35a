"""Fixtures of the worker's tests: a tokenizer of words, which needs no files."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from engine.errors import TokenizerError
from worker.plan.models import TextModel, TextModels


class WordTokenizer:
    """One token a word; ids by the word's text, so that equal words are equal tokens."""

    def encode_batch(
        self, texts: Sequence[str], add_special_tokens: bool = True
    ) -> list[list[int]]:
        start = [1] if add_special_tokens else []
        return [start + [2 + sum(word.encode()) % 900 for word in text.split()] for text in texts]

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **kwargs: Any) -> str:
        if messages[0]["role"] == "tool":
            raise TokenizerError("A conversation cannot begin with a tool.")
        return " ".join(f"<{message['role']}> {message['content']}" for message in messages)


def word_model(name: str, source: str = "words") -> TextModel:
    return TextModel(name, WordTokenizer(), context_length=64, vocab_size=1_000)


@pytest.fixture(scope="session")
def models() -> TextModels:
    return TextModels({"smollm2": "words", "other": "words"}, word_model)
