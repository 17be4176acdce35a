"""Which lines are blank."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from storage.streams.lines import is_blank, is_blank_bytes

SURROGATES = range(0xD800, 0xE000)


def made_of_nothing(text: str) -> bool:
    """The rule, character by character."""
    return all(char.isspace() or unicodedata.category(char) == "Cc" for char in text)


def test_every_character_of_unicode() -> None:
    wrong = [
        f"U+{code:04X}"
        for code in range(0x110000)
        if code not in SURROGATES
        for char in [chr(code)]
        if not is_blank(char) == is_blank_bytes(char.encode()) == made_of_nothing(char)
    ]
    assert wrong == []


@pytest.mark.parametrize("text", ["", " ", "\t\r", "\x1f", "\0", "\x7f \x85", "\u2028\u3000\x1c"])
def test_blank(text: str) -> None:
    assert is_blank(text)
    assert is_blank_bytes(text.encode())


@pytest.mark.parametrize("text", ["a", "\x1fa", " \u200b", "\ufeff", "\0 \u00ad", "\u3000é"])
def test_not_blank(text: str) -> None:
    assert not is_blank(text)
    assert not is_blank_bytes(text.encode())


@pytest.mark.parametrize("line", [b"\xff", b"\x00\xff", b" \xe3\x80", b"\xc2"])
def test_what_is_not_utf8_is_content(line: bytes) -> None:
    assert not is_blank_bytes(line)


@given(
    st.text(st.one_of(st.sampled_from("\x1f\0 \t\x85\u2003\u200ba"), st.characters(codec="utf-8")))
)
@example("\x1f")
def test_lines_of_many_characters(text: str) -> None:
    assert is_blank(text) == is_blank_bytes(text.encode()) == made_of_nothing(text)
