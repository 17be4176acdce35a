"""Tokenizers of Hugging Face folders: what their files say, and what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from engine.catalog import resolve
from engine.errors import FilesUnreadable, TokenizerError
from engine.tokenizer import load_tokenizer


@pytest.fixture
def folder(trained: tokenizers.Tokenizer, tmp_path: Path) -> Path:
    trained.enable_truncation(4)
    trained.enable_padding(length=4)
    trained.save(str(tmp_path / "tokenizer.json"))
    trained.no_truncation()
    trained.no_padding()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": {"content": "<|endoftext|>"}, "eos_token": "<|im_end|>"})
    )
    return tmp_path


def test_folder_gives_the_ids_of_its_tokenizer_json(
    folder: Path, trained: tokenizers.Tokenizer, texts: list[str]
) -> None:
    tokenizer = load_tokenizer(resolve(str(folder)))
    for text in texts:  # the stored truncation and padding to four tokens do not apply
        assert tokenizer.encode(text) == trained.encode(text).ids
        assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1)
    assert tokenizer.special_ids == {0, 1}
    assert tokenizer.byte_level


def test_named_tokens_become_special(folder: Path) -> None:
    config = {"eos_token": "Ġthe", "pad_token": "<|not in the vocabulary|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = load_tokenizer(resolve(str(folder)))
    assert tokenizer.eos_token_id in tokenizer.special_ids
    assert tokenizer.vocab_size == 700


def test_marks_of_tokenizer_json_stay(folder: Path) -> None:
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text())
    description["added_tokens"][1] |= {"rstrip": True, "special": False}
    path.write_text(json.dumps(description))
    tokenizer = load_tokenizer(resolve(str(folder)))
    assert tokenizer.encode("<|im_end|>  \n") == [1]  # rstrip: it takes the spaces after it
    assert tokenizer.special_ids == {0, 1}


def test_special_tokens_map_is_read_beside_the_configuration(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    assert load_tokenizer(resolve(str(folder))).eos_token_id == 1


def write_jinja(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("file {{ messages[0].content }}")


def write_string(folder: Path) -> None:
    write_config(folder, "file {{ messages[0].content }}")


def write_list(folder: Path) -> None:
    write_config(
        folder,
        [
            {"name": "default", "template": "file {{ messages[0].content }}"},
            {"name": "tool_use", "template": "tools {{ tools | length }}"},
        ],
    )


def write_several_files(folder: Path) -> None:
    write_string(folder)
    write_jinja(folder)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("rag")


def write_config(folder: Path, template: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": template}))


@pytest.mark.parametrize("write", [write_jinja, write_string, write_list, write_several_files])
def test_chat_template_of_a_folder(folder: Path, write: Callable[[Path], None]) -> None:
    write(folder)
    tokenizer = load_tokenizer(resolve(str(folder)))
    assert tokenizer.has_chat_template
    assert tokenizer.render_chat([{"role": "user", "content": "x"}]) == "file x"
    if write is write_list:
        assert tokenizer.render_chat([], tools=[{}, {}]) == "tools 2"
    if write is write_several_files:
        assert tokenizer.render_chat([], template="rag") == "rag"


def test_folders_that_cannot_be_read(folder: Path) -> None:
    write_config(folder, [1, 2])
    with pytest.raises(TokenizerError, match="chat_template"):
        load_tokenizer(resolve(str(folder)))
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match="not valid JSON"):
        load_tokenizer(resolve(str(folder)))
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(TokenizerError, match=r"tokenizer\.json cannot be read"):
        load_tokenizer(resolve(str(folder)))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        load_tokenizer(resolve(str(folder)))
    (folder / "tokenizer.json").mkdir()
    with pytest.raises(TokenizerError, match=r"has no tokenizer\.json"):
        load_tokenizer(resolve(str(folder)))


@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "additional_chat_templates/rag.jinja",
    ],
)
def test_a_file_that_cannot_be_read_for_the_moment(folder: Path, name: str) -> None:
    """No fault of the model's: what the system refuses may pass."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(path.name)  # it leads to itself
    with pytest.raises(FilesUnreadable, match=f"{name} cannot be read: Too many levels"):
        load_tokenizer(resolve(str(folder)))
    path.unlink()
    path.write_bytes(b"\xff")
    with pytest.raises(TokenizerError, match=f"{name} cannot be read: it is not UTF-8"):
        load_tokenizer(resolve(str(folder)))


LISTED = {"content": "<x>", "special": True}


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("tokenizer_config.json", {"added_tokens_decoder": {"700": LISTED | {"special": "true"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"700": LISTED | {"lstrip": 1}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"700": {"content": "\ud800"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"7" * 5000: LISTED}}),
        ("tokenizer_config.json", {"extra_special_tokens": ["\ud800"]}),
        ("tokenizer_config.json", {"chat_template": 3}),
        ("tokenizer_config.json", {"eos_token": "\ud800"}),
        ("special_tokens_map.json", {"unk_token": {"content": "a\udfff"}}),
        ("special_tokens_map.json", {"additional_special_tokens": {"a": "\ud800"}}),
    ],
)
def test_values_of_a_wrong_kind_are_the_files_fault(
    folder: Path, name: str, values: dict[str, Any]
) -> None:
    (folder / name).write_text(json.dumps(values))
    with pytest.raises(TokenizerError, match=str(folder)):
        load_tokenizer(resolve(str(folder)))


TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<x>", "type_id": 0}}],
    "pair": [],
    "special_tokens": {},
}


@pytest.mark.parametrize(
    "part",
    [
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
        {"post_processor": TEMPLATE},
    ],
)
def test_what_the_library_panics_at_is_the_files_fault(folder: Path, part: dict[str, Any]) -> None:
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | part))
    with pytest.raises(TokenizerError, match=f"The tokenizer of {folder} cannot be used"):
        load_tokenizer(resolve(str(folder)))
