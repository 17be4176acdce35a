"""What the benchmark of a GPU measures, on toy shapes without one."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from workloads import WORKLOADS, shrunk

from engine.errors import InvalidConfig
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import Activations
from engine.kernels.reference.fused import ReferenceFused
from engine.kernels.triton.launch import INTERPRETED
from gpu import correct, rows, serving
from gpu.kernels import passes
from gpu.kernels.attention import decode, shared
from gpu.kernels.cases import Kit
from gpu.kernels.inputs import Inputs, Sizes
from gpu.kernels.kits import REFERENCE, Kits
from gpu.random_models import RandomCheckpoint
from gpu.shapes import LLAMA3_8B, QWEN3_06B, model_config
from gpu.ways import WAYS

CPU = torch.device("cpu")


def section(name: str, folder: Path, picked: str = "") -> rows.Section:
    return rows.Section(name, folder, seconds=120, device="stand-in", picked=picked)


def test_workloads_have_the_lengths_that_other_engines_were_measured_with() -> None:
    # 133,966 tokens is what nano-vllm's own benchmark says it generates.
    nano = WORKLOADS["nano"](151_936, 7)
    assert sum(item.output_tokens for item in nano) == 133_966
    assert len(nano) == 256
    assert {len(item.prompt) for item in nano} <= set(range(100, 1025))
    again = WORKLOADS["nano"](128_256, 8)
    assert [len(item.prompt) for item in again] == [len(item.prompt) for item in nano]
    assert again[0].prompt != nano[0].prompt

    groups = WORKLOADS["groups4096"](500, 0)
    prefixes = [item.prompt[:1024] for item in groups]
    assert len(set(prefixes)) == 64
    assert {prefixes.count(prefix) for prefix in set(prefixes)} == {64}
    assert {(len(item.prompt), item.output_tokens) for item in groups} == {(1088, 64)}
    assert len({item.prompt for item in groups}) == 4096

    few = shrunk(nano, 2, 0.5)
    assert [len(item.prompt) for item in few] == [len(item.prompt) // 2 for item in nano[:2]]


def test_shapes_are_those_of_the_models_and_random_weights_fill_them() -> None:
    for name, parameters in ((QWEN3_06B, 596_049_920), (LLAMA3_8B, 8_030_261_248)):
        shapes = RandomCheckpoint(model_config(name), CPU).shapes.values()
        assert sum(torch.Size(shape).numel() for shape in shapes) == parameters
    toy = RandomCheckpoint(model_config(QWEN3_06B, toy=True), CPU)
    weight = toy.read("model.layers.1.mlp.up_proj.weight").float()
    assert weight.shape == (256, 128)
    assert weight.std() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(toy.read("model.norm.weight"), torch.ones(128, dtype=torch.bfloat16))


def test_workloads_run_on_toys_and_one_can_be_picked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.run(section("engine", tmp_path, "8b bf16 long16 | no graphs, no overlap nano"))
    found = rows.read(tmp_path, "engine")
    assert [(row["engine"], row["workload"]) for row in found] == [
        ("llama-3.1-8b bf16", "ready"),
        ("llama-3.1-8b bf16", "long16"),
        ("llama-3.1-8b bf16", "long16, profile"),
        ("qwen3-0.6b bf16 no graphs, no overlap", "ready"),
        ("qwen3-0.6b bf16 no graphs, no overlap", "nano"),
    ]
    long = found[1]
    assert (long["tokens"], long["steps"]) == (f"{2 * 3}+{2 * 14}", "1+14")  # shares of 0.03
    assert (long["batch"], long["note"]) == (2.0, "")
    assert found[2]["note"].startswith("busy ")

    def refuse(*arguments: object) -> None:
        raise InvalidConfig("not here", field="dtype")

    monkeypatch.setattr(serving, "open_engine", refuse)
    one = section("engine", tmp_path, "8b fp8 q1000")
    serving.run(one)
    assert rows.read(tmp_path, "engine")[-1]["note"] == "refused: InvalidConfig: not here"
    assert one.bad == 0


def test_passes_are_measured_and_a_wrong_one_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "measured", lambda case, kits: REFERENCE)
    one = section("kernels", tmp_path)
    passes.run(one)
    found = rows.read(tmp_path, "kernels")
    assert [row for row in found if row.get("error", "") not in ("", "0.0e+00")] == []
    assert {row["kernel"].split()[0] for row in found} == {
        *("ceilings", "decode", "prefill", "shared", "unpack", "product"),
        *("draw", "report", "torch.argmax", "torch.topk(50)"),
        *("add_norm", "gate", "rotate_and_store"),
    }
    assert one.bad == 0

    class Wrong(ReferenceFused):
        def gate(self, gate_up: torch.Tensor, out: Activations, hadamard_count: int = 1) -> None:
            super().gate(gate_up, out, hadamard_count)
            out.values[-1, 7] += 0.3  # one number of 768, of a standard deviation of about 0.6

        def add_norm(self, *arguments: Any) -> None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    wrong = Kit(Wrong(), REFERENCE.sampling)
    monkeypatch.setattr(passes, "measured", lambda case, kits: wrong)
    one = rows.Section("kernels", tmp_path / "other", 120, "stand-in", "3 float32")
    one.folder.mkdir()
    passes.run(one)
    found = rows.read(one.folder, "kernels")
    notes = {row["kernel"]: row.get("note", "") for row in found[1:]}
    assert notes["gate 3 float32"] == "BAD error above 1e-02"
    assert notes["add_norm 3 float32"].startswith("BAD RuntimeError: CUDA error: an illegal")
    assert notes["rotate_and_store 3 float32"] == ""
    assert one.bad == 2


def test_a_gain_below_its_mark_is_bad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    toy = Sizes.toy()
    monkeypatch.setattr(Sizes, "toy", lambda: replace(toy, four_rows=((1, 1e9),)))
    one = section("kernels", tmp_path, "128 x 128 int4")
    passes.run(one)
    [row] = [row for row in rows.read(tmp_path, "kernels") if "1 x 128" in row["kernel"]]
    assert row["note"] == "BAD gain below 1000000000.0"


@pytest.mark.skipif(not INTERPRETED, reason="a trial run interprets kernels")
@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton")
def test_true_kernels_get_true_tasks(tmp_path: Path) -> None:
    sizes = replace(Sizes.toy(), shared=((16, 8, 256, 5),))
    inputs = Inputs(CPU)
    kits = Kits(CPU, inputs.dtype, sizes)
    case = decode(inputs, kits, 3, 48, inputs.dtype, LLAMA3_8B)
    assert type(kits.of(case).fused).__name__ == "TritonFused"
    assert passes.worst_error(*case.make(), kits.of(case), REFERENCE) < 1e-5
    plain, cascade = shared(inputs, kits, 16, 8, 256, 5)
    assert (plain.bytes_read, plain.name) == (
        cascade.bytes_read,
        "shared 16 by 8, 256 + 5, no cascade",
    )
    for one, has_segments in ((plain, False), (cascade, True)):
        seen: list[AttentionTasks] = []
        kit = Kit(Noting(seen), REFERENCE.sampling)
        one.make()[0](kit)
        assert (seen[0].segment_tiles > 0) is has_segments


class Noting(ReferenceFused):
    """Notes the tasks of attention."""

    def __init__(self, seen: list[AttentionTasks]) -> None:
        self._seen = seen

    def attention(self, queries: Any, cache: Any, step: Any, tasks: Any, *more: Any) -> None:
        self._seen.append(tasks)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:transformers")
def test_an_engine_equals_transformers_in_every_way_and_a_wrong_one_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = section("correct", tmp_path)
    correct.run(one)
    found = {row["way"]: row for row in rows.read(tmp_path, "correct")}
    assert found.keys() == WAYS.keys()
    assert one.bad == 0
    for way, row in found.items():
        if row["dtype"] == "float32":
            whole = row["equal"].split()[2]
            assert (row["equal"], way) == (f"{whole} of {whole}", way)

    gaps = correct._gaps
    monkeypatch.setattr(correct, "_gaps", lambda o, prompt, x: gaps(o, [*prompt[:-1], 1], x))
    one = section("correct", tmp_path, "whole")
    one.folder = tmp_path / "other"
    one.folder.mkdir()
    one._begun.clear()
    correct.run(one)
    assert one.bad == 1

    never = replace(WAYS["cascade"], settings={"kv_cache_bytes": 2**24, "cascade": False})
    monkeypatch.setattr(correct, "WAYS", {"cascade": never})
    monkeypatch.setattr(correct, "_gaps", gaps)
    correct.run(section("correct", one.folder, "cascade"))
    assert rows.read(one.folder, "correct")[-1]["note"] == "BAD no segments"
