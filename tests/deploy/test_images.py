"""The Dockerfile's stages, read as text: there is no Docker where the tests run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text()
TARGETS = ("service", "worker-cpu", "worker-gpu")
HEAD = re.compile(r"^FROM (\S+) AS (\S+)$", flags=re.MULTILINE)


def stages() -> dict[str, tuple[str, str]]:
    """Stage → the stage or image that it starts from, and its instructions."""
    heads = list(HEAD.finditer(DOCKERFILE))
    ends = [head.start() for head in heads[1:]] + [len(DOCKERFILE)]
    return {
        head[2]: (head[1], DOCKERFILE[head.end() : end])
        for head, end in zip(heads, ends, strict=True)
    }


def history(target: str) -> str:
    """All instructions that a target's file system comes from, oldest first."""
    found = stages()
    text = ""
    while target in found:
        base, own = found[target]
        copied = "".join(history(stage) for stage in re.findall(r"--from=(\S+)", own))
        text = copied + own + text
        target = base
    return text


def test_compose_builds_the_targets_that_there_are() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"].values()
    builds = [service["build"] for service in services if "build" in service]
    assert {build["target"] for build in builds} == set(TARGETS) <= stages().keys()
    assert {build["dockerfile"] for build in builds} == {"deploy/Dockerfile"}


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_a_user_who_is_not_root(target: str) -> None:
    found = stages()
    users: list[str] = []
    while target in found:
        base, own = found[target]
        users = re.findall(r"^USER (\S+)$", own, flags=re.MULTILINE) + users
        target = base
    assert int(users[-1].partition(":")[0]) > 0


def test_only_workers_have_the_engine() -> None:
    assert "torch" not in history("service")
    assert "engine.txt" not in re.findall(r"-r (\S+)", history("service"))
    for worker in ("worker-cpu", "worker-gpu"):
        assert "-r engine.txt" in history(worker)
    assert "TORCH_INDEX" in history("worker-cpu")
    assert "TORCH_INDEX" not in history("worker-gpu")


def test_what_is_copied_is_there_and_goes_to_the_builder() -> None:
    allowed = set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, flags=re.MULTILINE)
    sources = {source for line in lines for source in line.split()[:-1]}
    assert {".", "pyproject.toml"} <= sources <= allowed | {"."}
    packages = {"tidemill", "api", "worker", "engine", "storage"}
    assert packages | {"README.md", "LICENSE"} <= allowed
    assert all((ROOT / name).exists() for name in allowed)


@pytest.mark.parametrize("module", ["tidemill.serve.processes", "tidemill.serve.service"])
def test_the_api_and_the_reconciler_start_without_what_only_workers_have(module: str) -> None:
    code = f"""
import sys
for name in ("torch", "safetensors", "tqdm"):
    sys.modules[name] = None
import {module}
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
