"""An engine that starts from kept weights computes what one does that prepares them, to the bit."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from engine.catalog import ModelFiles
from engine.config import EngineConfig
from engine.executors import build
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.native_executor import NativeExecutor
from engine.executors.runner import Runner
from engine.executors.start import start_runner
from engine.models.families import load_config
from engine.prepared import fingerprint as fingerprints
from engine.prepared.keeper import end_keepers
from engine.scheduler.step import Step, Work
from native import needs_kernels
from oracle import TINY, TOKENS, make
from oracle.ggufs import write_gguf

pytestmark = needs_kernels

SETTINGS: dict[str, Any] = {
    "device": "cpu",
    "quantization": "int8",
    "threads": 2,
    "kv_cache_bytes": 1 << 20,
    "max_num_seqs": 4,
    "max_batch_tokens": 64,
    "max_model_len": 64,
}


def llama_folder(folder: Path) -> ModelFiles:
    make(transformers.LlamaConfig(**TINY, tie_word_embeddings=True)).save_pretrained(folder)
    return ModelFiles("tiny", folder, None)


def qwen2_folder(folder: Path) -> ModelFiles:
    """With biases, and a head of its own."""
    make(transformers.Qwen2Config(**TINY, tie_word_embeddings=False)).save_pretrained(folder)
    return ModelFiles("tiny", folder, None)


def qwen3_gguf(folder: Path) -> ModelFiles:
    """With normalized heads."""
    config = transformers.Qwen3Config(**TINY, head_dim=32, tie_word_embeddings=True)
    path = write_gguf(folder / "tiny.gguf", make(config), gguf.MODEL_ARCH.QWEN3)
    return ModelFiles("tiny", folder, path)


def llama_gguf(folder: Path) -> ModelFiles:
    """In groups of 4 bits, with factors of the frequencies."""
    oracle = make(transformers.LlamaConfig(**TINY, tie_word_embeddings=True))
    factors = np.linspace(1, 8, 8, dtype=np.float32)
    kind = gguf.GGMLQuantizationType.Q4_1
    path = write_gguf(folder / "tiny.gguf", oracle, gguf.MODEL_ARCH.LLAMA, kind, factors)
    return ModelFiles("tiny", folder, path)


MODELS = (llama_folder, qwen2_folder, qwen3_gguf, llama_gguf)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where weights are kept; the models' files count as settled at once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(fingerprints, "SETTLED_NS", 0)
    return tmp_path / "cache" / "tidemill" / "weights"


class Started(NamedTuple):
    """What an engine runs on, and what it computes."""

    reused: bool
    form: dict[str, Any]
    tensors: dict[str, Tensor]
    scores: Tensor


def start(files: ModelFiles, **settings: Any) -> Started:
    """Start an engine, wait until its weights are kept, and run a step."""
    config = EngineConfig(model=str(files.folder), **SETTINGS | settings)
    threads = torch.get_num_threads()
    try:
        runner = start_runner(config, load_config(files), files)
    finally:
        torch.set_num_threads(threads)
    end_keepers(30)
    assert isinstance(runner, Runner)
    assert isinstance(runner.executor, NativeExecutor)
    inputs = StepInputs(BlockTables(4, 4, 16), 64)
    inputs.fill(Step((Work(0, 0, tuple(TOKENS), (0,), sample=True),)))
    scores = runner.executor.score(inputs)
    weights = runner.executor.decoder.weights
    reasons = runner.placement.reasons
    tensors = {**weights.tensors(), "cosines": weights.rotary.cosines}
    return Started(any("earlier" in each for each in reasons), weights.form(), tensors, scores)


def assert_equal(one: Started, other: Started) -> None:
    assert one.form == other.form
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert tensor.dtype == other.tensors[name].dtype
        assert torch.equal(tensor, other.tensors[name]), name
    assert torch.equal(one.scores, other.scores)


def kept(place: Path) -> list[Path]:
    """All that lies there."""
    return sorted(place.iterdir()) if place.exists() else []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("quantization", ["int8", "int4"])
@pytest.mark.parametrize("save", MODELS)
def test_a_second_start_runs_on_the_same_numbers_and_reads_none_of_the_model_s(
    save: Callable[[Path], ModelFiles],
    quantization: str,
    dtype: str,
    tmp_path: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files, settings = save(tmp_path), {"quantization": quantization, "dtype": dtype}
    plain = start(files, **settings, keep_prepared_weights=False)
    assert kept(place) == [], "it is switched off"
    first = start(files, **settings)
    assert len(kept(place)) == 1
    with monkeypatch.context() as patch:
        patch.setattr(build, "load_decoder", None)
        second = start(files, **settings)
    assert (plain.reused, first.reused, second.reused) == (False, False, True)
    assert_equal(plain, first)
    assert_equal(plain, second)


@pytest.mark.parametrize("save", [llama_folder, llama_gguf])
def test_a_weight_that_is_changed_under_old_times_changes_the_scores(
    save: Callable[[Path], ModelFiles], tmp_path: Path
) -> None:
    files = save(tmp_path)
    before = start(files)
    path = files.gguf or files.folder / "model.safetensors"
    state = path.stat()
    with path.open("r+b") as file:
        file.seek(-4 * 64, os.SEEK_END)
        old = file.read()
        file.seek(-len(old), os.SEEK_END)
        file.write(bytes(byte ^ 1 for byte in old))
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (state.st_size, state.st_mtime_ns)
    after = start(files)
    assert not after.reused
    assert not torch.equal(before.scores, after.scores)
    assert_equal(after, start(files, keep_prepared_weights=False))
    again = start(files)
    assert again.reused
    assert_equal(after, again)


def test_each_choice_has_weights_of_its_own(tmp_path: Path, place: Path) -> None:
    files = llama_folder(tmp_path)
    choices: list[dict[str, Any]] = [
        {"dtype": "float32"},
        {"dtype": "bfloat16"},
        {"dtype": "float32", "quantization": "int4"},
        {"dtype": "float32", "quantization": "int4", "symmetric": True},
        {"dtype": "float32", "quantization": "int4", "group_size": -1},
    ]
    first = [start(files, **each) for each in choices]
    assert not any(each.reused for each in first)
    assert len(kept(place)) == len(choices)
    for choice, expected in zip(choices, first, strict=True):
        again = start(files, **choice)
        assert again.reused
        assert_equal(expected, again)


def test_plain_weights_are_not_kept(tmp_path: Path, place: Path) -> None:
    start(llama_folder(tmp_path), quantization="none", dtype="float32")
    assert kept(place) == []


def test_weights_of_other_code_are_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = llama_folder(tmp_path)
    start(files)
    monkeypatch.setattr(fingerprints, "SOURCES", "of another version")
    assert not start(files).reused


def flip(path: Path, offset: int) -> None:
    """Change a bit of a byte; an offset below 0 counts from the end."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def clear_a_page(path: Path) -> None:
    """As after a crash of the machine: of the right length, but never written."""
    with path.open("r+b") as file:
        file.seek(-8192, os.SEEK_END)
        file.write(bytes(4096))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: cut(path, 0),
    "only a length": lambda path: cut(path, 8),
    "half": lambda path: cut(path, path.stat().st_size // 2),
    "a byte short": lambda path: cut(path, path.stat().st_size - 1),
    "a byte long": lambda path: cut(path, path.stat().st_size + 1),
    "another length": lambda path: flip(path, 0),
    "the longest header": lambda path: path.write_bytes(b"\xff" * 9),
    "other places": lambda path: flip(path, path.read_bytes().rindex(b"data_offsets") + 16),
    "another record": lambda path: flip(path, path.read_bytes().index(b"kind") + 8),
    "another number": lambda path: flip(path, -20_000),
    "the last number": lambda path: flip(path, -1),
    "a page of zeros": clear_a_page,
    "no header": lambda path: path.write_bytes((2).to_bytes(8, "little") + b"[]"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_not_used_and_replaced(
    damage: Callable[[Path], object], tmp_path: Path, place: Path
) -> None:
    files = llama_folder(tmp_path)
    expected = start(files)
    (path,) = kept(place)
    whole = path.read_bytes()
    damage(path)
    assert path.read_bytes() != whole
    mended = start(files)
    assert not mended.reused
    assert_equal(expected, mended)
    assert path.read_bytes() == whole
    assert start(files).reused


def test_a_file_under_another_s_name_is_not_used(tmp_path: Path, place: Path) -> None:
    files = llama_folder(tmp_path)
    expected = start(files)
    (path,) = kept(place)
    start(files, dtype="float32")
    start(files, dtype="bfloat16")
    for other in kept(place):
        if other != path and other.stat().st_size != path.stat().st_size:
            path.write_bytes(other.read_bytes())
    mended = start(files)
    assert not mended.reused
    assert_equal(expected, mended)


def test_a_use_counts_and_a_folder_that_cannot_be_read_is_no_obstacle(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = llama_folder(tmp_path)
    expected = start(files)
    (path,) = kept(place)
    os.utime(path, (0, 0))
    assert start(files).reused
    assert path.stat().st_mtime > 0, "the least recently used go first"
    for cache in ("/proc/nowhere", "/dev/null", str(path)):
        monkeypatch.setenv("XDG_CACHE_HOME", cache)
        without = start(files)
        assert not without.reused
        assert_equal(expected, without)
