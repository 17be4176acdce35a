"""Checkpoints of Hugging Face's layout, and everything that can be wrong with one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.catalog import ModelFiles, resolve
from engine.errors import CheckpointError, OutOfCache
from engine.kernels.linear import pack_weight
from engine.kernels.reference.backend import ReferenceBackend
from engine.models.decoder import Decoder
from engine.models.families import load_config
from engine.models.headers import INDEX_FILE, SINGLE_FILE
from engine.models.loading import load_model
from oracle import CPU, TINY, Model, assert_equals_oracle, logits, make


def cast_parameters(model: Model, dtype: torch.dtype) -> None:
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)


def load_folder(folder: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    files = ModelFiles("tiny", folder, None)
    return load_model(
        files, load_config(files), backend=ReferenceBackend(), device=CPU, dtype=dtype
    )


def save_sharded(model: Model, folder: Path) -> None:
    model.save_pretrained(folder, max_shard_size="60KB")
    assert (folder / INDEX_FILE).is_file()
    assert len(list(folder.glob("*.safetensors"))) > 2


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("save", [Model.save_pretrained, save_sharded])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16])
def test_one_file_or_several_of_any_plain_dtype(
    tmp_path: Path, stored: torch.dtype, save: Callable[[Model, Path], None], tied: bool
) -> None:
    oracle = make(transformers.LlamaConfig(**TINY, tie_word_embeddings=tied))
    # Not the whole module: its rotary buffer would lose digits that no checkpoint holds.
    cast_parameters(oracle, stored)
    save(oracle, tmp_path)
    cast_parameters(oracle, torch.float32)
    assert_equals_oracle(load_folder(tmp_path), oracle)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_are_cast_to_the_dtype_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    make(transformers.LlamaConfig(**TINY)).save_pretrained(tmp_path)
    decoder = load_folder(tmp_path, dtype)
    # The head of a CPU is float32, so that its scores are.
    kinds = {name: parameter.dtype for name, parameter in decoder.named_parameters()}
    assert kinds.pop("head.weight") == torch.float32
    assert set(kinds.values()) == {dtype}
    near = torch.nn.functional.cosine_similarity(
        logits(decoder), logits(load_folder(tmp_path)), dim=-1
    )
    assert near.min() > 0.995


@pytest.fixture
def tied_folder(tmp_path: Path) -> Path:
    make(transformers.LlamaConfig(**TINY, tie_word_embeddings=True)).save_pretrained(tmp_path)
    return tmp_path


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Change the tensors of a checkpoint in a single file."""
    tensors = load_file(folder / SINGLE_FILE)
    change(tensors)
    save_file(tensors, folder / SINGLE_FILE)


def test_leftovers_that_say_nothing_new_are_no_error(tied_folder: Path) -> None:
    before = logits(load_folder(tied_folder))

    def add(tensors: dict[str, Tensor]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)

    rewrite(tied_folder, add)
    assert torch.equal(logits(load_folder(tied_folder)), before)


def test_every_tensor_that_does_not_fit_is_named_at_once(tied_folder: Path) -> None:
    def spoil(tensors: dict[str, Tensor]) -> None:
        del tensors["model.norm.weight"]
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.2.input_layernorm.weight"] = torch.ones(64)
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.ones(64)
        tensors["model.layers.0.self_attn.k_proj.weight"] = torch.ones(64, 64)

    rewrite(tied_folder, spoil)
    with pytest.raises(CheckpointError) as raised:
        load_folder(tied_folder)
    said = str(raised.value)
    assert "missing: model.layers.1.mlp.up_proj.weight, model.norm.weight;" in said
    assert (
        "unexpected: model.layers.0.self_attn.q_proj.bias, model.layers.2.input_layernorm.weight;"
        in said
    )
    assert "model.layers.0.self_attn.k_proj.weight is (64, 64), not (32, 64)" in said


def test_an_untied_head_must_be_there(tied_folder: Path) -> None:
    config = json.loads((tied_folder / "config.json").read_text())
    (tied_folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        load_folder(tied_folder)


def test_weights_in_integers_are_refused(tied_folder: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(tied_folder, lambda tensors: tensors.update({name: tensors[name].to(torch.int8)}))
    with pytest.raises(CheckpointError, match=f"{name} is stored as I8"):
        load_folder(tied_folder)


def test_a_folder_without_safetensors_says_so(tied_folder: Path) -> None:
    (tied_folder / SINGLE_FILE).unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors is missing"):
        load_folder(tied_folder)


def test_a_truncated_file_is_named(tied_folder: Path) -> None:
    path = tied_folder / SINGLE_FILE
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read"):
        load_folder(tied_folder)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save_sharded(make(transformers.LlamaConfig(**TINY)), tmp_path)
    shard = sorted(tmp_path.glob("*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(CheckpointError, match=f"{shard.name} is missing"):
        load_folder(tmp_path)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ({}, "has no weight_map"),
        ({"weight_map": {"a": "../elsewhere.safetensors"}}, "outside its folder"),
        ({"weight_map": {"a": "part.safetensors", "b": "part.safetensors"}}, "absent tensors: b"),
    ],
)
def test_a_broken_index_is_refused(tied_folder: Path, index: dict[str, object], said: str) -> None:
    (tied_folder / SINGLE_FILE).unlink()
    save_file({"a": torch.ones(2)}, tied_folder / "part.safetensors")
    (tied_folder / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=said):
        load_folder(tied_folder)


def test_packing_keeps_no_second_copy_of_the_weights() -> None:
    files = resolve("smollm2")
    decoder = load_model(
        files, load_config(files), backend=ReferenceBackend(), device=CPU, dtype=torch.bfloat16
    )
    decoder.pack()
    held = sum(parameter.numel() for parameter in decoder.parameters())
    # Where this processor packs, the embedding and the norms stay, and otherwise all of it.
    one = torch.zeros(64, 64, dtype=torch.bfloat16)
    packs = pack_weight(ReferenceBackend(), one) is not one
    assert held == (49_152 * 576 + 61 * 576 if packs else 134_515_008)


def test_a_cache_that_does_not_fit_is_a_typed_error(tied_folder: Path) -> None:
    config = load_config(ModelFiles("tiny", tied_folder, None))
    with pytest.raises(OutOfCache):
        KVCache.allocate(config, 0, 16, CPU, torch.float32)
    with pytest.raises(OutOfCache, match="bytes"):
        KVCache.allocate(config, 2**42, 16, CPU, torch.float32)
