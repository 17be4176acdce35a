"""Tokenizers from folders and GGUF files, with transformers as the oracle for their ids."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import pytest
import tokenizers
from tokenizers import pre_tokenizers, trainers
from transformers import AutoTokenizer

from engine.catalog import ModelFiles, resolve
from engine.errors import TokenizerError
from engine.gguf import GGUFFile
from engine.tokenizer import Tokenizer, load_tokenizer

BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]


@pytest.fixture(scope="module")
def smollm2() -> Tokenizer:
    return load_tokenizer(resolve("smollm2"))


def byte_level_metadata(trained: tokenizers.Tokenizer, pre: str) -> dict[str, Any]:
    model = json.loads(trained.to_str())["model"]
    tokens = [*sorted(model["vocab"], key=model["vocab"].__getitem__), "<think>"]
    types = [3, 3] + [1] * (len(tokens) - 3) + [4]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in model["merges"]],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
    }


def sentencepiece_metadata(corpus: list[str]) -> dict[str, Any]:
    """A vocabulary as SentencePiece's BPE makes it: scores fall with the order of merges."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=600, show_progress=False)
    tokenizer.train_from_iterator([text for text in corpus if text.isascii()], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merged = ["".join(pair) for pair in model["merges"]]
    letters = [token for token in model["vocab"] if token not in set(merged)]
    merged = list(dict.fromkeys(merged))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": ["<unk>", "<s>", "</s>", *BYTE_TOKENS, *merged, *letters],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(merged + letters),
        "tokenizer.ggml.scores": [0.0] * 259
        + [-float(rank) for rank in range(len(merged + letters))],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def write_gguf(path: Path, metadata: dict[str, Any]) -> ModelFiles:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    for key, value in metadata.items():
        match value:
            case bool():
                writer.add_bool(key, value)
            case int():
                writer.add_uint32(key, value)
            case str():
                writer.add_string(key, value)
            case _:
                writer.add_array(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return resolve(str(path))


def transformers_tokenizer(files: ModelFiles) -> Any:
    assert files.gguf is not None
    return AutoTokenizer.from_pretrained(str(files.folder), gguf_file=files.gguf.name)


def test_smollm2_ids_equal_transformers(
    smollm2: Tokenizer, texts: list[str], corpus: list[str]
) -> None:
    oracle = transformers_tokenizer(resolve("smollm2"))
    # transformers does not know "smollm" and cuts as GPT-2 does; the model's own tokenizer.json
    # cuts digits apart first, which shows where several spaces come before a digit.
    oracle.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    for text in [*texts, *corpus]:
        ids = smollm2.encode(text)
        assert ids == oracle.encode(text)
        assert smollm2.decode(ids) == oracle.decode(ids, skip_special_tokens=True)
        assert smollm2.decode(ids, skip_special_tokens=False) == text
    assert smollm2.special_ids == set(oracle.all_special_ids) | set(range(17))
    assert (smollm2.bos_token_id, smollm2.eos_token_id) == (1, 2)
    assert smollm2.vocab_size == len(oracle) == 49_152


@pytest.mark.parametrize("pre", ["gpt-2", "default", "llama-bpe", "qwen2", "tekken"])
def test_byte_level_ids_equal_transformers(
    trained: tokenizers.Tokenizer, tmp_path: Path, pre: str, texts: list[str]
) -> None:
    metadata = byte_level_metadata(trained, pre) | {"tokenizer.ggml.add_bos_token": False}
    files = write_gguf(tmp_path / "model.gguf", metadata)
    ours, oracle = load_tokenizer(files), transformers_tokenizer(files)
    for text in [*texts, "a<think>b<|im_end|>"]:
        if pre == "qwen2" and "\u0301" in text:
            continue  # Qwen's own tokenizer composes characters first; this oracle does not
        assert ours.encode(text) == oracle.encode(text)


def test_qwen2_composes_characters(trained: tokenizers.Tokenizer, tmp_path: Path) -> None:
    qwen = load_tokenizer(write_gguf(tmp_path / "q.gguf", byte_level_metadata(trained, "qwen2")))
    assert qwen.encode("cafe\u0301") == qwen.encode("café")


def test_sentencepiece_ids_equal_transformers(
    tmp_path: Path, texts: list[str], corpus: list[str]
) -> None:
    files = write_gguf(tmp_path / "model.gguf", sentencepiece_metadata(corpus))
    ours, oracle = load_tokenizer(files), transformers_tokenizer(files)
    for text in texts:
        if text.startswith(" "):
            continue  # llama.cpp puts a space before it all the same, transformers does not
        ids = ours.encode(text)
        assert ids == oracle.encode(text)
        assert ids[0] == 1
        assert ours.decode(ids) == oracle.decode(ids, skip_special_tokens=True) == text


def test_sentencepiece_spaces_and_bytes_survive(
    tmp_path: Path, texts: list[str], corpus: list[str]
) -> None:
    tokenizer = load_tokenizer(write_gguf(tmp_path / "m.gguf", sentencepiece_metadata(corpus)))
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert not tokenizer.byte_level
    assert tokenizer.token_bytes(3 + 0xE4) == b"\xe4"
    assert tokenizer.is_byte_token(3 + 0xE4)
    word = tokenizer.encode("the the", add_special_tokens=False)[-1]
    assert tokenizer.token_bytes(word).startswith(b" ")


def test_no_space_prefix_where_the_file_says_so(tmp_path: Path, corpus: list[str]) -> None:
    metadata = sentencepiece_metadata(corpus) | {"tokenizer.ggml.add_space_prefix": False}
    tokenizer = load_tokenizer(write_gguf(tmp_path / "m.gguf", metadata))
    ids = tokenizer.encode("the", add_special_tokens=False)
    assert b"".join(map(tokenizer.token_bytes, ids)) == b"the"
    assert tokenizer.decode(tokenizer.encode(" the")) == " the"


@pytest.mark.parametrize(
    ("pre", "flags", "first", "last"),
    [
        ("gpt-2", {}, False, False),
        ("llama-bpe", {}, True, False),
        ("llama-bpe", {"tokenizer.ggml.add_bos_token": False}, False, False),
        (
            "gpt-2",
            {"tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True},
            True,
            True,
        ),
    ],
)
def test_first_and_last_token_follow_the_file(
    trained: tokenizers.Tokenizer,
    tmp_path: Path,
    pre: str,
    flags: dict[str, bool],
    first: bool,
    last: bool,
) -> None:
    metadata = byte_level_metadata(trained, pre) | flags
    tokenizer = load_tokenizer(write_gguf(tmp_path / "m.gguf", metadata))
    plain = tokenizer.encode("Hello", add_special_tokens=False)
    assert tokenizer.encode("Hello") == [0] * first + plain + [1] * last


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"tokenizer.ggml.model": "bert"}, "'bert'; known are: gpt2, llama"),
        ({"tokenizer.ggml.pre": "novel"}, "'novel' is not known"),
        ({"tokenizer.ggml.merges": ["no such"]}, "contradicts itself"),
        ({"tokenizer.ggml.merges": ["a"]}, "contradicts itself"),
    ],
)
def test_gguf_tokenizers_that_cannot_be_built(
    trained: tokenizers.Tokenizer, tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    metadata = byte_level_metadata(trained, "gpt-2") | change
    with pytest.raises(TokenizerError, match=reason):
        load_tokenizer(write_gguf(tmp_path / "m.gguf", metadata))


def test_gguf_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="None"):
        load_tokenizer(write_gguf(tmp_path / "m.gguf", {}))


def test_batch_equals_one_by_one(smollm2: Tokenizer, texts: list[str]) -> None:
    assert smollm2.encode_batch(texts) == [smollm2.encode(text) for text in texts]
    assert smollm2.encode_batch([]) == []


def test_token_bytes_make_up_the_text(smollm2: Tokenizer, texts: list[str]) -> None:
    for text in texts:
        ids = smollm2.encode(text)
        assert b"".join(map(smollm2.token_bytes, ids)) == text.encode()
    assert smollm2.token_bytes(10**6) == b""
    assert smollm2.id_to_token(10**6) is None
    assert smollm2.id_to_token(2) == "<|im_end|>"


def test_text_that_is_no_unicode_is_refused(smollm2: Tokenizer) -> None:
    with pytest.raises(TokenizerError, match="surrogates"):
        smollm2.encode("a\ud800b")


def test_encode_chat_is_the_rendered_prompt_without_added_tokens(
    trained: tokenizers.Tokenizer, tmp_path: Path
) -> None:
    metadata = byte_level_metadata(trained, "llama-bpe") | {
        "tokenizer.chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "tokenizer.chat_template.loud": "{{ messages[0].content | upper }}",
    }
    tokenizer = load_tokenizer(write_gguf(tmp_path / "m.gguf", metadata))
    messages = [{"role": "user", "content": "hello"}]
    middle = tokenizer.encode("hello", add_special_tokens=False)
    assert tokenizer.encode_chat(messages) == [0, *middle, 1]
    assert tokenizer.render_chat(messages, template="loud") == "HELLO"


def test_nothing_here_imports_torch() -> None:
    modules = "engine.catalog, engine.gguf, engine.tokenizer"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root)


def test_the_metadata_of_the_embedded_model_is_enough(smollm2: Tokenizer) -> None:
    with GGUFFile(resolve("smollm2").gguf or "") as file:
        assert len(file.metadata["tokenizer.ggml.tokens"]) == smollm2.vocab_size
    prompt = smollm2.encode_chat([{"role": "user", "content": "What is the capital of France?"}])
    assert prompt[0] == smollm2.bos_token_id
    assert smollm2.decode(prompt, skip_special_tokens=False).endswith("<|im_start|>assistant\n")
