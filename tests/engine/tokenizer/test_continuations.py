"""Texts that go on from a prompt, and prompts that begin with the first token themselves."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from engine import LLM, SamplingParams
from engine.errors import TokenizerError
from engine.llm import Prompt
from engine.tokenizer import IncrementalDetokenizer, Tokenizer

BYTES = [f"<0x{byte:02X}>" for byte in range(0xE0, 0xF0)]
PIECES = ["<unk>", "<s>", "</s>", "▁one", "▁two", "▁three", "en", "▁", "▁▁four", "five"]
VOCABULARY = {token: index for index, token in enumerate(PIECES + BYTES)}
STEPS = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
DECODERS = {
    "strip": decoders.Sequence([*STEPS, decoders.Strip(" ", 1, 0)]),
    "metaspace": decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]),
    "spaces": decoders.Sequence(STEPS),
    "wordpiece": decoders.WordPiece(prefix="five"),
}


def backend_of(kind: str) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    backend.decoder = DECODERS[kind]
    backend.add_special_tokens(
        [AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")]
    )
    backend.post_processor = processors.TemplateProcessing(
        "<s> $A", special_tokens=[("<s>", VOCABULARY["<s>"])]
    )
    return backend


def tokenizer_of(backend: tokenizers.Tokenizer, template: str = "") -> Tokenizer:
    return Tokenizer(
        backend,
        special_tokens={"bos_token": "<s>", "eos_token": "</s>"},
        chat_templates={"default": template},
    )


TOKENIZERS = {kind: tokenizer_of(backend_of(kind)) for kind in DECODERS}
ids = st.lists(st.integers(0, len(VOCABULARY) + 1), max_size=8)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(DECODERS)), ids, ids)
def test_the_text_after_a_prompt_is_what_it_adds(
    kind: str, prompt: list[int], new: list[int]
) -> None:
    tokenizer = TOKENIZERS[kind]
    after = tokenizer.context_of(prompt)
    text = tokenizer.decode(new, after=after)
    detokenizer = IncrementalDetokenizer(tokenizer, after=after)
    assert "".join([*map(detokenizer.push, new), detokenizer.finish()]) == text
    # A run of bytes over the border is one character, or none; both sides are then no text alone.
    if not any(token >= len(PIECES) for token in prompt) and after:
        assert tokenizer.decode(prompt) + text == tokenizer.decode([*prompt, *new])
    if not after:
        assert text == tokenizer.decode(new)


class Chain(Protocol):
    folder: Path

    def write(self, tokenizer: tokenizers.Tokenizer, files: Mapping[str, Any]) -> Path: ...

    def load(self, **settings: Any) -> LLM: ...


@pytest.mark.parametrize("kind", ["strip", "metaspace"])
def test_a_completion_keeps_its_first_space_and_an_answer_has_none(kind: str, chain: Chain) -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    chain.write(backend_of(kind), {"tokenizer_config.json": {"chat_template": template}})
    llm = chain.load()

    def texts(**params: Any) -> list[str]:
        chat = [{"role": "user", "content": "one"}]
        prompts: list[Prompt] = ["one", [VOCABULARY["▁one"]], chat]
        sampling = SamplingParams(temperature=0, max_tokens=3, **params)
        return [each.text for each in llm.generate(prompts, sampling, progress=False)]

    assert texts() == [" two threeen", " two threeen", "two threeen"]
    assert texts(stop=("x",)) == texts()
    assert texts(stop=("en",)) == [" two three", " two three", "two three"]
    assert texts(stop=(" two",)) == ["", "", "two threeen"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one", "<s> ▁one"),
        ("<s>one", "<s> ▁one"),
        ("<s>", "<s>"),
        ("", "<s>"),
        ("<s><s>one", "<s> <s> ▁one"),  # the second is the text's own
        (" <s>one", "<s> ▁ ▁ <s> ▁one"),
        ("one<s>", "<s> ▁one <s>"),
    ],
)
def test_a_prompt_has_one_first_token(text: str, expected: str) -> None:
    tokenizer = TOKENIZERS["strip"]
    names = [tokenizer.id_to_token(token_id) for token_id in tokenizer.encode(text)]
    assert names == expected.split()


def test_several_first_tokens_are_not_doubled_and_last_ones_are_none() -> None:
    backend = backend_of("strip")
    backend.post_processor = processors.TemplateProcessing(
        "<s> </s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    tokenizer = tokenizer_of(backend)
    assert tokenizer.encode("one") == tokenizer.encode("<s></s>one") == [1, 2, 3, 2]
    backend.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 2)])
    assert tokenizer_of(backend).encode("</s></s>one") == [2, 2, 3, 2]


def test_a_vocabulary_without_an_unknown_token() -> None:
    backend = tokenizers.Tokenizer(models.WordLevel({"<s>": 0, "one": 1}))
    backend.add_special_tokens([AddedToken("<s>", normalized=False)])
    backend.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = tokenizer_of(backend)
    assert tokenizer.encode("one") == tokenizer.encode("<s>one") == [0, 1]
    with pytest.raises(TokenizerError, match="cannot be encoded"):
        tokenizer.encode("two")


def test_a_first_token_that_the_template_writes_is_the_only_one() -> None:
    tokenizer = tokenizer_of(backend_of("strip"), "{{ bos_token }}{{ messages[0].content }}")
    for content in ("one", "one </s>"):
        messages = [{"role": "user", "content": content}]
        chat = tokenizer.render_chat(messages)
        assert tokenizer.encode(chat) == tokenizer.encode_chat(messages)
        assert tokenizer.encode_chat(messages).count(1) == 1
