"""The benchmark of a GPU works on toy shapes without one, and says so where there is none."""

import argparse
import json
import sys
from pathlib import Path

import pytest
import torch
from workloads import WORKLOADS, shrunk

from engine.kernels.fused.tensors import Activations
from engine.kernels.reference.fused import ReferenceFused
from gpu import correct, passes, rows, serving, table
from gpu import run as start
from gpu.random_models import RandomCheckpoint
from gpu.shapes import LLAMA3_8B, QWEN3_06B, model_config

CPU = torch.device("cpu")


def section(name: str, folder: Path, picked: str = "") -> rows.Section:
    return rows.Section(name, folder, seconds=120, device="cpu", picked=picked)


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


def test_workloads_run_on_toys_and_a_refusal_is_a_row(tmp_path: Path) -> None:
    serving.run(section("engine", tmp_path, "8b bf16"))
    serving.run(section("engine", tmp_path, "no cascade"))
    found = rows.read(tmp_path, "engine")
    whole = {row["workload"]: row for row in found if row.get("out/s")}
    assert whole.keys() == {"long1", "long16", "q1000"}
    assert whole["long16"]["tokens"] == f"{4 * 3}+{4 * 14}"  # of a share of 0.03
    assert all(row["note"] == "" for row in whole.values())
    assert found[-1]["note"].startswith("refused: ")


def test_passes_are_measured_and_a_wrong_one_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = section("kernels", tmp_path)
    passes.run(one)
    found = rows.read(tmp_path, "kernels")
    assert [row for row in found if row.get("error", "0.0e+00") != "0.0e+00"] == []
    names = [row["kernel"].split()[0] for row in found]
    assert set(names) == {
        "ceilings",
        "decode",
        "prefill",
        "product",
        "add_norm",
        "gate",
        "rotate_and_store",
    }
    assert one.bad == 0

    class Wrong(ReferenceFused):
        def gate(self, gate_up: torch.Tensor, out: Activations) -> None:
            super().gate(gate_up * 1.1, out)

    monkeypatch.setattr(passes, "fused_kernels", lambda device: Wrong())
    one = section("kernels", tmp_path, "gate 3 bfloat16")
    passes.run(one)
    assert one.bad == 1
    assert rows.read(tmp_path, "kernels")[-1]["note"] == "BAD"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning:transformers")
def test_an_engine_equals_transformers_in_every_way_and_a_wrong_one_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = section("correct", tmp_path, "qwen3")
    correct.run(one)
    found = rows.read(tmp_path, "correct")
    assert [(row["way"], row["equal"]) for row in found] == [
        (way, "384 of 384") for way in correct.WAYS
    ]
    assert one.bad == 0

    gaps = correct._gaps
    monkeypatch.setattr(correct, "_gaps", lambda o, prompt, x: gaps(o, [*prompt[:-1], 1], x))
    monkeypatch.setattr(correct, "WAYS", {"whole": correct.WAYS["whole"]})
    one = section("correct", tmp_path, "qwen3")
    correct.run(one)
    assert one.bad == 1


def test_what_a_section_wrote_stays_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts = {
        "kernels": "print('begun', flush=True); time.sleep(60)",
        "engine": "pass",
        "quality": "raise SystemExit(3)",
    }

    def command(name: str, args: argparse.Namespace, seconds: float) -> list[str]:
        row = f"open('{rows.path(tmp_path, name)}', 'w').write('{{\"name\": \"{name} row\"}}\\n')"
        return [sys.executable, "-S", "-c", f"import time; {row}; {scripts[name]}"]

    monkeypatch.setattr(start, "_command", command)
    monkeypatch.setattr(start, "_GRACE", 0.5)
    monkeypatch.setattr(start, "SECONDS", {"kernels": 0.5, "engine": 30, "quality": 30})
    monkeypatch.setattr(
        sys, "argv", ["run.py", "--dry", "--out", str(tmp_path), "--sections", *scripts]
    )
    assert start.main() == 1
    shown = capsys.readouterr()
    assert shown.out == (tmp_path / "table.md").read_text() + "\n"
    assert [line for line in shown.out.splitlines() if " row " in line] == [
        f"| {name} row |" for name in scripts
    ]
    assert "killed: its time was over" in shown.out
    assert "ended with status 3" in shown.out
    assert "begun" in shown.err


def test_without_a_gpu_it_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "none")])
    assert start.main() == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "torch sees no CUDA device here: nothing was checked.\n"
    assert not (tmp_path / "none").exists()


def test_a_table_is_cut_to_a_screen_in_whole_lines(tmp_path: Path) -> None:
    many = [{"kernel": f"k{index}", "us": index, "note": "a|b"} for index in range(2000)]
    text = table.render({"device": "x"}, {"kernels": ("1 s of 2, done.", many)})
    assert "| k7 | 7 | a/b |\n" in text
    short = table.shortened(text)
    assert len(short) <= table.MOST_CHARACTERS
    assert short.splitlines()[-2] in text.splitlines()
    assert table.shortened("short") == "short"

    path = rows.path(tmp_path, "engine")
    path.write_text(json.dumps({"a": 1}) + "\n" + '{"b": ')  # ended while it wrote
    assert rows.read(tmp_path, "engine") == [{"a": 1}]
