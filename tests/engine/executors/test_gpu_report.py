"""What is said of GPUs, from facts of machines that need not be at hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from engine.executors import gpu_report
from engine.executors.gpu_report import Gpu, GpuFacts, gather, report

H200 = Gpu("NVIDIA H200", (9, 0), 150 * 2**30, 149 * 2**30)
A100 = Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 80 * 2**30, 79 * 2**30)
A10 = Gpu("NVIDIA A10", (8, 6), 24 * 2**30, 23 * 2**30)
T4 = Gpu("Tesla T4", (7, 5), 16 * 2**30, 15 * 2**30)
FACTS = GpuFacts((H200,), "580.82.07", "2.11.0+cu130", "13.0", "3.6.0")


def test_every_gpu_has_a_line_with_what_it_serves() -> None:
    first, second = report(replace(FACTS, gpus=(H200, A100)))
    assert first.ok
    assert first.found == (
        "GPU 0: NVIDIA H200, compute capability 9.0, 149 of 150 GiB free, driver 580.82.07; "
        "Triton 3.6.0 serves weights in bf16, fp16, int8, fp8, int4"
    )
    assert second.ok
    assert second.found.endswith(
        "serves weights in bf16, fp16, int8, int4, and not fp8, which needs 8.9"
    )


def test_a_card_without_a_table_is_said_to_go_by_a_rule() -> None:
    (line,) = report(replace(FACTS, gpus=(A10,)))
    assert line.ok
    assert line.found.endswith("no tile sizes are shipped for it, a rule picks them")


def test_an_old_card_is_named_as_not_served() -> None:
    (line,) = report(replace(FACTS, gpus=(T4,)))
    assert not line.ok
    assert "Tesla T4, compute capability 7.5" in line.found
    assert line.found.endswith("not served: the kernels need compute capability 8.0")
    assert "TIDEMILL_DEVICE=cpu" in line.hint


def test_triton_that_is_missing_is_named_with_what_installs_it() -> None:
    (line,) = report(replace(FACTS, triton=""))
    assert not line.ok
    assert line.found.endswith("the kernels need Triton, which is not installed")
    assert line.hint == "pip install 'triton>=3.6'"


def test_a_torch_that_cannot_use_the_gpu_is_one_line() -> None:
    (line,) = report(replace(FACTS, gpus=(), torch="2.13.0+cpu", cuda=""))
    assert line.found == (
        "an NVIDIA GPU is here (driver 580.82.07), but torch 2.13.0+cpu is built without CUDA"
    )
    old = replace(FACTS, gpus=(), driver="470.1", refusal="The NVIDIA driver is too old")
    (line,) = report(old)
    assert not line.ok
    assert line.found == (
        "an NVIDIA GPU is here (driver 470.1), but torch 2.11.0+cu130 for CUDA 13.0 cannot use it: "
        "The NVIDIA driver is too old"
    )


def test_a_machine_without_a_gpu_has_no_line() -> None:
    assert report(replace(FACTS, gpus=(), driver="")) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19", "535.129.03"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.82.07  Release Build",
            "580.82.07",
        ),
        ("something else", "unknown"),
    ],
)
def test_the_drivers_version_is_read(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "version"
    assert gpu_report._driver_version(path) == ""
    path.write_text(text + "\n")
    assert gpu_report._driver_version(path) == expected


def test_the_facts_of_this_machine_can_be_gathered() -> None:
    facts = gather()
    assert facts.torch
    assert len(report(facts)) == max(len(facts.gpus), bool(facts.driver))
