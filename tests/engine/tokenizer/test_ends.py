"""Where an answer ends: every file that may name the token, and what names none."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest
import tokenizers
from tokenizers import AddedToken, models, pre_tokenizers

from engine import LLM, SamplingParams
from engine.catalog import ModelFiles, resolve
from engine.models.families import load_config
from engine.tokenizer import Tokenizer, load_tokenizer
from engine.tokenizer.from_gguf import chat_templates, end_tokens, rebuild, special_tokens

WORDS = ["<unk>", "<s>", "</s>", "one", "two", "<|im_end|>", "three", "four", "<|pad|>", "five"]
END = WORDS.index("<|im_end|>")
Files = Mapping[str, Mapping[str, Any]]


class Chain(Protocol):
    folder: Path

    def write(self, tokenizer: tokenizers.Tokenizer, files: Files) -> Path: ...

    def load(self, **settings: Any) -> LLM: ...


def words(special: Sequence[str] = ("<s>", "</s>")) -> tokenizers.Tokenizer:
    """One token a word; the words of ``special`` are marked so."""
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.add_special_tokens([AddedToken(word, normalized=False) for word in special])
    return backend


TOKEN = {"content": "<|im_end|>", "lstrip": False, "special": True}


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": {"eos_token_id": END}},
        {"config.json": {"eos_token_id": [2, END]}},
        {"config.json": {"eos_token_id": 2}, "generation_config.json": {"eos_token_id": END}},
        {"generation_config.json": {"eos_token_id": [2, END]}},
        {"tokenizer_config.json": {"eos_token": "<|im_end|>"}},
        {"tokenizer_config.json": {"eos_token": TOKEN}, "config.json": {"eos_token_id": 2}},
        {
            "tokenizer_config.json": {"eos_token": "<|im_end|>"},
            "config.json": {"eos_token_id": [2, -1, 99]},
            "generation_config.json": {"eos_token_id": 2},
        },
        {
            "tokenizer_config.json": {"eos_token": None},
            "special_tokens_map.json": {"eos_token": TOKEN},
        },
        {"special_tokens_map.json": {"eos_token": "<|im_end|>"}},
    ],
)
def test_an_answer_ends_with_the_token_that_any_file_names(chain: Chain, files: Files) -> None:
    chain.write(words(), files)
    output = chain.load().generate("one", SamplingParams(temperature=0), progress=False)[0]
    assert output.text == "two"
    assert (output.outputs[0].finish_reason, output.outputs[0].token_ids[-1]) == ("stop", END)


@pytest.mark.parametrize("allowed", [False, True])
def test_an_end_in_a_message_is_one_where_the_engine_is_told_so(
    chain: Chain, allowed: bool
) -> None:
    template = "{% for m in messages %}{{ m.content }} </s> {% endfor %}three"
    chain.write(words(), {"tokenizer_config.json": {"chat_template": template}})
    llm = chain.load(control_tokens_in_messages=allowed)
    chat = [{"role": "user", "content": "one </s> two"}]
    completion = llm.generate(chat, SamplingParams(temperature=0, max_tokens=1), progress=False)[0]
    planted = 2 if allowed else 0  # the word is unknown as text
    assert completion.prompt_token_ids == (3, planted, 4, 2, 6)
    assert completion.text == "four"


def test_no_other_token_ends_an_answer(chain: Chain) -> None:
    files: dict[str, Any] = {
        "config.json": {"eos_token_id": 2},
        "tokenizer_config.json": {
            "eos_token": "</s>",
            "pad_token": "<|pad|>",
            "additional_special_tokens": ["<|im_end|>"],
        },
    }
    chain.write(words(), files)
    params = SamplingParams(temperature=0, max_tokens=6, skip_special_tokens=False)
    output = chain.load().generate("one", params, progress=False)[0]
    assert output.text == "two <|im_end|> three four <|pad|> five"
    assert output.outputs[0].finish_reason == "length"


def test_tokens_that_only_the_configuration_lists_have_its_ids(chain: Chain) -> None:
    size = len(WORDS)
    listed = {
        str(size): TOKEN | {"content": "<|end|>"},
        str(size + 1): "<|plain|>",
        str(size + 5): TOKEN | {"content": "<|far|>"},  # nothing is before it
        "0": TOKEN | {"content": "one"},  # it is another
        str(END): TOKEN,
    }
    config = {"eos_token": "<|end|>", "added_tokens_decoder": listed}
    chain.write(words(), {"tokenizer_config.json": config})
    tokenizer = load_tokenizer(resolve(str(chain.folder)))
    assert tokenizer.encode("one<|end|>two<|plain|>") == [3, size, 4, size + 1]
    assert tokenizer.end_token_ids == (size,)
    assert tokenizer.special_ids == {1, 2, END, size}
    assert tokenizer.vocab_size == size + 2


def test_ids_outside_the_vocabulary_end_nothing(tmp_path: Path, chain: Chain) -> None:
    ids = {"eos_token_id": [-1, 64, 7], "bos_token_id": -1}
    chain.write(words(), {"config.json": ids, "generation_config.json": {"eos_token_id": [10**9]}})
    config = load_config(ModelFiles("tiny", chain.folder, None))
    assert (config.eos_token_ids, config.bos_token_id) == ((7,), None)


def gguf_ends(tokens: Mapping[str, int], **metadata: Any) -> list[str]:
    """The ends of a file whose vocabulary has these tokens, each with its type."""
    names = ["a", *tokens]
    given = {f"tokenizer.{name}": value for name, value in metadata.items()}
    values = given | {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": names,
        "tokenizer.ggml.token_type": [1, *tokens.values()],
        "tokenizer.ggml.merges": [],
        "tokenizer.ggml.eos_token_id": 1,
    }
    tokenizer = Tokenizer(
        rebuild(values),
        special_tokens=special_tokens(values),
        chat_templates=chat_templates(values),
        end_tokens=end_tokens(values),
    )
    return [names[index] for index in tokenizer.end_token_ids]


@pytest.mark.parametrize(
    "end",
    json.loads(
        '["<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "<|eom_id|>", '
        '"<EOT>", "_<EOT>", "[EOT]", "<turn|>", "<|end_of_text|>", "<end_of_utterance>", "</s>"]'
    ),
)
def test_a_gguf_file_with_a_template_ends_at_known_spellings(end: str) -> None:
    tokens = {"<eos>": 3, "<|im_start|>": 3, end: 3}
    assert gguf_ends(tokens, chat_template="x") == ["<eos>", end]
    assert gguf_ends(tokens | {end: 4}, chat_template="x") == ["<eos>", end]
    assert gguf_ends(tokens | {end: 1}, chat_template="x") == ["<eos>"]  # it is text
    assert gguf_ends(tokens) == ["<eos>"]  # a base model


def test_an_end_of_a_message_is_no_end_of_a_turn_beside_others() -> None:
    harmony = {"<|return|>": 3, "<|call|>": 3, "<|end|>": 3}
    assert gguf_ends(harmony, chat_template="x") == ["<|return|>", "<|call|>"]
