"""How many CPUs a process may use, and what they are called."""

import os
import platform
from dataclasses import replace
from pathlib import Path

import pytest

from engine.executors import machine
from engine.info import EngineInfo


def _group(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def _listing(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "cgroup"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.mark.parametrize(
    ("limit", "quota"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("50000 100000\n", 0.5), ("odd\n", None)],
)
def test_a_group_of_version_2_has_a_quota(tmp_path: Path, limit: str, quota: float | None) -> None:
    _group(tmp_path / "jobs" / "one", cpu__max=limit)
    assert machine.cpu_quota(_listing(tmp_path, "0::/jobs/one"), tmp_path) == quota


def test_the_least_of_a_group_and_those_above_it_counts(tmp_path: Path) -> None:
    _group(tmp_path / "jobs", cpu__max="200000 100000\n")
    _group(tmp_path / "jobs" / "one", cpu__max="400000 100000\n")
    assert machine.cpu_quota(_listing(tmp_path, "0::/jobs/one"), tmp_path) == 2.0


def test_a_container_sees_its_own_group_at_the_root(tmp_path: Path) -> None:
    _group(tmp_path, cpu__max="300000 100000\n")
    assert machine.cpu_quota(_listing(tmp_path, "0::/docker/of-the-host"), tmp_path) == 3.0


@pytest.mark.parametrize(("microseconds", "quota"), [("250000", 2.5), ("-1", None)])
def test_a_group_of_version_1_has_a_quota(
    tmp_path: Path, microseconds: str, quota: float | None
) -> None:
    files = {"cpu__cfs_quota_us": f"{microseconds}\n", "cpu__cfs_period_us": "100000\n"}
    _group(tmp_path / "cpu,cpuacct" / "jobs", **files)
    _group(tmp_path / "memory" / "jobs", cpu__cfs_quota_us="1\n", cpu__cfs_period_us="1000\n")
    listing = _listing(tmp_path, "4:memory:/jobs", "2:cpu,cpuacct:/jobs", "0::/")
    assert machine.cpu_quota(listing, tmp_path) == quota


def test_without_control_groups_there_is_no_quota(tmp_path: Path) -> None:
    assert machine.cpu_quota(tmp_path / "none", tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "allowed", "count"), [(None, 8, 8), (1.5, 8, 2), (0.2, 8, 1), (16.0, 8, 8)]
)
def test_a_quota_is_rounded_up(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, allowed: int, count: int
) -> None:
    monkeypatch.setattr(machine, "cpu_quota", lambda *_paths: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: set(range(allowed)))
    assert machine.cpu_count() == count


def test_a_processor_is_known_by_its_name(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9B14\nprocessor\t: 1\n")
    assert machine.processor_name(cpuinfo) == "AMD EPYC 9B14"
    cpuinfo.write_text("model name\t:\n")
    assert machine.processor_name(cpuinfo) == platform.machine()
    assert machine.processor_name(tmp_path / "none")


def test_speed_is_kept_under_what_makes_it() -> None:
    sizes = ("m", 64, 100)
    ran = EngineInfo(*sizes, "cpu", "bfloat16", 1, 16, 4, 64, 0.0, quantization="int8", threads=2)
    assert replace(ran, hardware="AMD EPYC").rated_as == "cpu:AMD EPYC, 2 threads, int8"
    assert replace(ran, threads=1).rated_as == "cpu, 1 thread, int8"
    gpu = replace(ran, device="cuda:3", quantization="none", hardware="NVIDIA H200")
    assert gpu.rated_as == "cuda:NVIDIA H200, bfloat16"
