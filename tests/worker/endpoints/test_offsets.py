"""Offsets of tokens point into the text, whatever of the tokens is not in it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.endpoints.offsets import text_offsets


@pytest.mark.parametrize(
    ("text", "tokens", "offsets"),
    [
        ("Hi there", [b"Hi", b" there"], [0, 2]),
        ("", [b"</s>"], [0]),
        ("ab", [b"<s>", b"a", b"<|x|>", b"b", b"</s>"], [0, 0, 1, 1, 2]),
        # One character of four bytes, in three tokens; then one behind it.
        ("a\U0001f600b", [b"a", b"\xf0\x9f", b"\x98", b"\x80", b"b"], [0, 1, 1, 1, 2]),
        # SentencePiece: no space in front.
        ("Hello you", [b" Hello", b" you"], [0, 5]),
        # Bytes that are no UTF-8 are replaced in the text, and tokens go on behind them.
        ("a\ufffdb c", [b"a", b"\x80", b"b", b" c"], [0, 1, 2, 3]),
        # Cut at a stop string within a token.
        ("one t", [b"one", b" two", b" three"], [0, 3, 3]),
        ("ab", [b"", b"ab"], [0, 0]),
    ],
)
def test_offsets(text: str, tokens: list[bytes], offsets: list[int]) -> None:
    assert text_offsets(text, tokens) == offsets


@given(st.text(max_size=30), st.lists(st.integers(0, 120), max_size=8))
def test_wherever_a_text_is_cut_a_token_begins_at_its_character(
    text: str, places: list[int]
) -> None:
    data = text.encode()
    cuts = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    tokens = [data[start:end] for start, end in pairwise(cuts)]
    begins = [index for index, char in enumerate(text) for _ in char.encode()]
    assert text_offsets(text, tokens) == [begins[cut] for cut in cuts[:-1]]
