"""Incremental text against `decode`, and stop strings against a search in the whole text."""

import time
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models

from engine.catalog import resolve
from engine.tokenizer import IncrementalDetokenizer, Tokenizer, load_tokenizer

SMOLLM2 = load_tokenizer(resolve("smollm2"))


def small(decoder: decoders.Decoder) -> Tokenizer:
    """A SentencePiece-like tokenizer: byte tokens, words with and without their space, specials."""
    words = ["▁", "▁▁", "a", "b", "ab", "▁a", "▁the", "é", "日", "▁日本", ".", "\n", "�", "x▁y"]
    tokens = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    backend.add_special_tokens([AddedToken("<s>", special=True, normalized=False)])
    backend.add_tokens([AddedToken("<tool>", normalized=False)])
    backend.decoder = decoder
    return Tokenizer(backend, special_tokens={"bos_token": "<s>"}, chat_templates={})


LLAMA = small(
    decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
)
METASPACE = small(decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback()]))
TOKENIZERS = {"smollm2": SMOLLM2, "llama": LLAMA, "metaspace": METASPACE}

# Bytes and pieces of characters are rare among all ids, and what goes wrong goes wrong there.
BYTES = {
    "smollm2": [i for i in range(SMOLLM2.vocab_size) if max(SMOLLM2.token_bytes(i)) > 0x7F],
    "llama": list(range(2, 258)),
    "metaspace": list(range(2, 258)),
}


def ids_of(name: str) -> st.SearchStrategy[list[int]]:
    size = TOKENIZERS[name].vocab_size
    some = st.one_of(
        st.integers(0, size + 1),  # the last two are unknown
        st.sampled_from(BYTES[name]),
        st.sampled_from(sorted(TOKENIZERS[name].special_ids)),
        st.integers(max(0, size - 16), size - 1),
    )
    # Real text in byte tokens, so that runs of them are valid too.
    text = st.text(max_size=6).map(lambda text: TOKENIZERS[name].encode(text, False))
    return st.lists(st.one_of(some.map(lambda one: [one]), text), max_size=24).map(
        lambda parts: [token for part in parts for token in part]
    )


cases = st.sampled_from(sorted(TOKENIZERS)).flatmap(
    lambda name: st.tuples(st.just(name), ids_of(name))
)


def run(tokenizer: Tokenizer, ids: list[int], **options: Any) -> tuple[str, IncrementalDetokenizer]:
    detokenizer = IncrementalDetokenizer(tokenizer, **options)
    parts = [detokenizer.push(token) for token in ids] + [detokenizer.finish()]
    text = "".join(parts)
    assert detokenizer.text == text
    return text, detokenizer


@settings(max_examples=600, deadline=None)
@given(cases, st.booleans())
@example(("llama", [258, 263]), True)
@example(("llama", [2 + 0xE6, 2 + 0x97, 2 + 0xA5, 2 + 0xFF, 260]), True)
def test_pushing_one_by_one_equals_decode(case: tuple[str, list[int]], skip: bool) -> None:
    name, ids = case
    text, detokenizer = run(TOKENIZERS[name], ids, skip_special_tokens=skip)
    assert text == TOKENIZERS[name].decode(ids, skip_special_tokens=skip)
    assert detokenizer.stopped is None


def first_stop(text: str, stops: list[str]) -> tuple[int, str] | None:
    """The first stop to be complete, the longest among equals, and where it begins."""
    found = [(at + len(stop), at, stop) for stop in stops if (at := text.find(stop)) >= 0]
    return (lambda best: (best[1], best[2]))(min(found)) if found else None


@settings(max_examples=600, deadline=None)
@given(cases, st.data(), st.booleans())
def test_stop_strings_cut_wherever_tokens_end(
    case: tuple[str, list[int]], data: st.DataObject, include: bool
) -> None:
    name, ids = case
    full = TOKENIZERS[name].decode(ids)
    within = st.integers(0, max(0, len(full) - 1)).flatmap(
        lambda start: st.integers(1, 9).map(lambda length: full[start : start + length])
    )
    stops = data.draw(st.lists(within | st.text("ab. é", min_size=1, max_size=4), max_size=4))
    stops = [stop for stop in stops if stop]
    text, detokenizer = run(TOKENIZERS[name], ids, stop=stops, include_stop=include)
    match first_stop(full, stops):
        case None:
            assert (text, detokenizer.stopped) == (full, None)
        case start, stop:
            assert detokenizer.stopped == stop
            assert text == full[: start + len(stop) * include]


@settings(max_examples=500, deadline=None)
@given(st.text("ab", max_size=40), st.lists(st.text("ab", min_size=1, max_size=5), max_size=4))
def test_only_a_beginning_of_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    detokenizer = IncrementalDetokenizer(SMOLLM2, stop=stops)
    seen = ""
    for char in text:
        detokenizer.push(*SMOLLM2.encode(char))
        seen += char
        if detokenizer.stopped:
            break
        held = max(
            (n for stop in stops for n in range(len(stop)) if seen.endswith(stop[:n])), default=0
        )
        assert detokenizer.text == seen[: len(seen) - held]


def test_a_character_over_several_tokens_comes_whole() -> None:
    ids = SMOLLM2.encode("🧬")
    assert len(ids) > 1
    detokenizer = IncrementalDetokenizer(SMOLLM2)
    assert [detokenizer.push(token) for token in ids] == [""] * (len(ids) - 1) + ["🧬"]


def test_an_unfinished_character_becomes_a_replacement() -> None:
    detokenizer = IncrementalDetokenizer(SMOLLM2)
    assert detokenizer.push(SMOLLM2.encode("🧬")[0]) == ""
    assert detokenizer.finish() == "\ufffd"


def test_words_come_without_delay() -> None:
    words = [LLAMA.vocab_size - 10, LLAMA.vocab_size - 9]
    assert LLAMA.decode(words) == "a the"
    for tokenizer, ids in ((SMOLLM2, SMOLLM2.encode("The capital")), (LLAMA, words)):
        detokenizer = IncrementalDetokenizer(tokenizer, stop=["<|never|>"])
        pieces = [detokenizer.push(token) for token in ids]
        assert all(pieces)


def test_nothing_comes_after_a_stop() -> None:
    ids = SMOLLM2.encode("one. two. three")
    detokenizer = IncrementalDetokenizer(SMOLLM2, stop=["."])
    assert "".join(map(detokenizer.push, ids)) == "one"
    assert (detokenizer.stopped, detokenizer.finish(), detokenizer.text) == (".", "", "one")


def test_a_special_token_can_be_a_stop_string_where_it_is_shown() -> None:
    ids = SMOLLM2.encode("yes<|im_end|>no")
    assert run(SMOLLM2, ids, stop=["<|im_end|>"])[0] == "yesno"
    shown, _ = run(SMOLLM2, ids, stop=["<|im_end|>"], skip_special_tokens=False)
    assert shown == "yes"


@pytest.mark.parametrize("name", sorted(TOKENIZERS))
@pytest.mark.parametrize("token", ["a", "byte"])
def test_time_is_linear_in_the_answer(name: str, token: str) -> None:
    tokenizer = TOKENIZERS[name]
    one = BYTES[name][-1] if token == "byte" else tokenizer.encode("a")[0]
    stops = ["aaaaaaaaaaaaaaaaaaaaaaaaaaab", "b"]

    def seconds(count: int) -> float:
        started = time.process_time()
        run(tokenizer, [one] * count, stop=stops)
        return time.process_time() - started

    seconds(100)
    # Ten times the tokens: about ten times the time; quadratic would be a hundred times.
    assert seconds(20_000) < 40 * max(seconds(2_000), 0.002)
