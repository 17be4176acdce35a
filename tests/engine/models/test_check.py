"""Whether files are a model that can be loaded, told by their headers, and why not."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

from engine.catalog import files_state
from engine.errors import (
    MODEL_FAULTS,
    CheckpointError,
    EngineError,
    ModelNotFound,
    TokenizerError,
    UnsupportedModel,
)
from engine.gguf import GGUFFile
from engine.models.check import check_model
from engine.models.headers import INDEX_FILE, SINGLE_FILE
from oracle import TINY, make


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    make(transformers.LlamaConfig(**TINY)).save_pretrained(folder)
    words = tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="a")
    tokenizers.Tokenizer(words).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "tiny"))


def _config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(folder / SINGLE_FILE) | changes
    save_file(
        {name: each for name, each in tensors.items() if each is not None}, folder / SINGLE_FILE
    )


def _only_bin(folder: Path) -> None:
    (folder / SINGLE_FILE).rename(folder / "pytorch_model.bin")


def _lost_shard(folder: Path) -> None:
    (folder / SINGLE_FILE).rename(folder / "one.safetensors")
    names = {"model.norm.weight": "one.safetensors", "lm_head.weight": "two.safetensors"}
    (folder / INDEX_FILE).write_text(json.dumps({"weight_map": names}))


def _cut(name: str, keep: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, keep)


HEAD, UP = "lm_head.weight", "model.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("spoil", "type", "said"),
    [
        (_only_bin, CheckpointError, r"safetensors is missing.*holds pytorch_model\.bin"),
        (_lost_shard, CheckpointError, r"two\.safetensors is missing"),
        (_cut(SINGLE_FILE, 100_000), CheckpointError, "Is it a whole copy"),
        (_cut(SINGLE_FILE, 500), CheckpointError, "Is it a whole copy"),
        (_cut(SINGLE_FILE, 0), CheckpointError, "Is it a whole copy"),
        (lambda f: _tensors(f, **{HEAD: None}), CheckpointError, rf"missing: {HEAD}"),
        (lambda f: _tensors(f, **{UP: torch.ones(2, 64)}), CheckpointError, r"is \(2, 64\), not"),
        (lambda f: _tensors(f, **{UP: torch.ones(96, 64).char()}), CheckpointError, "as I8"),
        (lambda f: _tensors(f, extra=torch.ones(1)), CheckpointError, "unexpected: extra"),
        (lambda f: _config(f, num_hidden_layers=10**9), CheckpointError, "1,000,000,000 layers"),
        (lambda f: _config(f, architectures=["BertModel"]), UnsupportedModel, "BertModel"),
        (lambda f: _config(f, rope_parameters={"rope_type": "yarn"}), UnsupportedModel, "yarn"),
        (_cut("config.json", 20), CheckpointError, r"config\.json cannot be read as JSON"),
        (lambda f: (f / "config.json").unlink(), CheckpointError, "neither a config"),
        (lambda f: (f / "tokenizer.json").unlink(), TokenizerError, r"no tokenizer\.json"),
        (_cut("tokenizer.json", 50), TokenizerError, r"tokenizer\.json"),
        (lambda f: (f / "tokenizer_config.json").write_text("[" * 10**5), TokenizerError, "JSON"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_told_from_its_headers(
    folder: Path, spoil: Callable[[Path], object], type: type[EngineError], said: str
) -> None:
    assert check_model(str(folder)).config.num_layers == 2
    spoil(folder)
    with pytest.raises(type, match=said) as raised:
        check_model(str(folder))
    assert isinstance(raised.value, MODEL_FAULTS), "it lasts until the files are changed"
    assert not raised.value.retryable


def test_of_very_many_wrong_tensors_the_first_are_named(folder: Path) -> None:
    _tensors(folder, **{f"extra.{index}": torch.ones(1) for index in range(500)})
    with pytest.raises(CheckpointError, match="and 492 more") as raised:
        check_model(str(folder))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize("folder_there", [False, True])
def test_files_that_are_not_there_may_come(tmp_path: Path, folder_there: bool) -> None:
    place = tmp_path / "unmounted"
    if folder_there:
        place.mkdir()
    with pytest.raises(ModelNotFound) as raised:
        check_model(str(place))
    assert raised.value.retryable
    assert not isinstance(raised.value, MODEL_FAULTS)


def test_no_weight_is_read(folder: Path) -> None:
    """A hundred gigabytes that are not there: reading them would take minutes."""
    wide, rows = 8192, 1_000_000
    _config(folder, vocab_size=rows, hidden_size=wide, num_hidden_layers=1, head_dim=16)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (rows, wide),
        "lm_head.weight": (rows, wide),
        "model.norm.weight": (wide,),
    }
    layers: dict[str, tuple[int, ...]] = {
        "input_layernorm": (wide,),
        "post_attention_layernorm": (wide,),
    }
    layers |= {f"self_attn.{name}_proj": (32, wide) for name in "kv"}
    layers |= {"self_attn.q_proj": (64, wide), "self_attn.o_proj": (wide, 64)}
    layers |= {f"mlp.{name}_proj": (96, wide) for name in ("gate", "up")}
    layers |= {"mlp.down_proj": (wide, 96)}
    shapes |= {f"model.layers.0.{name}.weight": shape for name, shape in layers.items()}
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 4 * torch.Size(shape).numel()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    (folder / SINGLE_FILE).write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(folder / SINGLE_FILE, 8 + len(text) + end)
    assert end > 60e9
    assert check_model(str(folder)).config.vocab_size == rows


def _write_gguf(path: Path, type: gguf.GGMLQuantizationType, shape: tuple[int, ...]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_block_count(1)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tensor("token_embd.weight", torch.zeros(shape).byte().numpy(), raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_gguf_type_that_cannot_be_decoded_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    _write_gguf(path, gguf.GGMLQuantizationType.Q2_K, (4, 84))
    with pytest.raises(CheckpointError, match=r"of type Q2_K.*known are BF16.*Q8_0"):
        check_model(str(path))
    _write_gguf(path, gguf.GGMLQuantizationType.Q8_0, (4, 272))
    with pytest.raises(CheckpointError, match=r"missing: blk\.0\.attn_k\.weight.* and 2 more"):
        check_model(str(path))


def test_what_a_damaged_gguf_file_says_is_short(tmp_path: Path) -> None:
    path = tmp_path / "long.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("x" * 5000, "v")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    data = path.read_bytes()
    at = data.index(b"x" * 5000) + 5000
    path.write_bytes(data[:at] + b"\x63" + data[at + 1 :])
    with pytest.raises(CheckpointError, match="has metadata 'xxx") as raised:
        GGUFFile(path)
    assert len(str(raised.value)) < 500 + len(str(path))


def test_the_state_of_files_changes_with_them(folder: Path) -> None:
    before = files_state(str(folder))
    assert before == files_state(str(folder)) != ()
    os.truncate(folder / SINGLE_FILE, 10)
    changed = files_state(str(folder))
    assert changed != before
    assert files_state(str(folder / "nowhere")) == ()
    assert files_state("smollm2") == files_state("smollm2") != ()
