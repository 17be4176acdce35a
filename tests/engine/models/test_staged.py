"""Weights that go through pinned buffers to a device are those that a plain read gives, bit by bit.

The device is a stand-in that copies as late as it may: a buffer that is filled again too early
gives wrong weights in every run.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from engine.catalog import ModelFiles
from engine.errors import CheckpointError, FilesUnreadable
from engine.kernels.fused.stand_in import StandIn
from engine.kernels.int8 import Int8Weight
from engine.kernels.reference.backend import ReferenceBackend
from engine.models.decoder import Decoder, Linear
from engine.models.families import load_config
from engine.models.loading import load_model
from engine.models.staged import ReadReport, StagedReader, Stored
from engine.quantize.weights import Int8Weights
from oracle import CPU, TINY, make


def load(folder: Path, reader: StagedReader | None, dtype: torch.dtype, **more: Any) -> Decoder:
    files = ModelFiles("tiny", folder, None)
    return load_model(
        files,
        load_config(files),
        backend=ReferenceBackend(),
        device=CPU,
        dtype=dtype,
        reader=reader,
        **more,
    )


def reader(readers: int = 3, buffer_bytes: int = 1000) -> StagedReader:
    return StagedReader(StandIn(), readers=readers, buffer_bytes=buffer_bytes)


def weights(decoder: Decoder) -> dict[str, Tensor]:
    """Every parameter, and what projections run on in place of one."""
    found: dict[str, Tensor] = dict(decoder.named_parameters())
    for name, module in decoder.named_modules():
        if isinstance(module, Linear) and module.replaced:
            match module.take():
                case Int8Weight() as weight:
                    found |= {f"{name}.values": weight.values, f"{name}.scales": weight.scales}
    return found


def assert_same(ours: Decoder, plain: Decoder) -> None:
    expected, found = weights(plain), weights(ours)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def save(folder: Path, stored: torch.dtype, *, shard: str, tied: bool) -> int:
    """A checkpoint with one norm in float32 among tensors of another type; returns its bytes."""
    config = transformers.Qwen3Config(**TINY, head_dim=16, tie_word_embeddings=tied)
    model = make(config)
    for name, parameter in model.named_parameters():
        if name != "model.norm.weight":
            parameter.data = parameter.data.to(stored)
    model.save_pretrained(folder, max_shard_size=shard)
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            total += sum(file.get_tensor(name).nbytes for name in names)
    return total


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard", ["60KB", "1GB"])
@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_every_dtype_and_number_of_files_gives_the_same_bits(
    tmp_path: Path, stored: torch.dtype, shard: str, tied: bool
) -> None:
    total = save(tmp_path, stored, shard=shard, tied=tied)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 2) == (shard == "60KB")
    reports: list[ReadReport] = []
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        ours = load(tmp_path, reader(), dtype, report=reports.append)
        assert_same(ours, load(tmp_path, None, dtype))
    assert [report.bytes for report in reports] == [total] * 3
    assert all(report.read_seconds > 0 for report in reports)


@pytest.mark.parametrize(("readers", "buffer_bytes"), [(1, 8), (2, 64), (8, 2**20)])
def test_neither_readers_nor_buffers_change_a_bit(
    tmp_path: Path, readers: int, buffer_bytes: int
) -> None:
    # Small tensors, as a buffer of 8 bytes takes long.
    tensors = {"a": torch.randn(7, 5), "b": torch.randn(129), "c": torch.randn(3, 3).double()}
    path = tmp_path / "x.safetensors"
    save_file(tensors, path)
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    targets = {name: torch.full_like(tensor, 9.0) for name, tensor in tensors.items()}
    pairs, offset = [], start
    for name in sorted(tensors, key=lambda name: (-tensors[name].itemsize, name)):
        tensor = tensors[name]
        pairs.append((Stored(path, offset, tensor.dtype, tuple(tensor.shape)), targets[name]))
        offset += tensor.nbytes
    reader(readers, buffer_bytes).fill(pairs[::-1])
    for name, tensor in tensors.items():
        assert torch.equal(targets[name], tensor), name


def test_projections_that_are_prepared_are_read_the_same_way(tmp_path: Path) -> None:
    save(tmp_path, torch.bfloat16, shard="60KB", tied=True)
    config = load_config(ModelFiles("tiny", tmp_path, None))

    def prepared(staged: StagedReader | None) -> Decoder:
        prepare = Int8Weights(config, ReferenceBackend())
        return load(tmp_path, staged, torch.float32, prepare=prepare)

    assert_same(prepared(reader()), prepared(None))


def test_a_file_that_ends_too_early_or_is_gone_is_named(tmp_path: Path) -> None:
    path = tmp_path / "short"
    path.write_bytes(bytes(100))
    target = torch.empty(64)
    with pytest.raises(CheckpointError, match="short ends too early"):
        reader().fill([(Stored(path, 0, torch.float32, (64,)), target)])
    with pytest.raises(FilesUnreadable, match="gone cannot be read: No such file"):
        reader().fill([(Stored(tmp_path / "gone", 0, torch.float32, (64,)), target)])


def test_the_report_is_one_line_of_both_rates() -> None:
    report = ReadReport(bytes=16_000_000_000, seconds=4.0, read_seconds=20.0, readers=8)
    assert str(report) == (
        "16.00 GB of weights in 4.0 s: 4.0 GB/s, where the files give 6.4 GB/s to 8 readers"
    )
