"""compose.yaml, its images and its example settings fit each other, the commands and `stack`."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from stack.topology import Stack
from storage.settings import NAMES, Settings
from tidemill.cli.main import app

ROOT = Path(__file__).parents[2]
COMPOSE = (ROOT / "compose.yaml").read_text()
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(:[?-])?([^}]*)\}")
SERVICES: dict[str, Any] = yaml.safe_load(COMPOSE)["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
PUBLIC = {"API_ADDRESS", "API_PORT"}
# What holds inside a container alone.
CONTAINER_SETTINGS = {"TIDEMILL_METRICS_PORT"}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    """A stack that is not started."""
    stack = Stack(tmp_path)
    yield stack
    stack.stop()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_a_health_check_a_pinned_image_and_is_restarted(name: str) -> None:
    service = SERVICES[name]
    check = service["healthcheck"]
    assert check["test"][0] in {"CMD", "CMD-SHELL"}
    assert len(check["test"]) > 1
    assert {"interval", "timeout", "retries"} <= set(check)
    assert re.search(r":\d+(\.\d+)+(-[\w.]+)?$", service["image"])
    assert service["restart"] == "unless-stopped"


def test_it_starts_with_no_secret_left_out() -> None:
    used = {name: kind for name, kind, _ in VARIABLE.findall(COMPOSE)}
    secrets = {name for name in used if name not in PUBLIC}
    assert secrets == {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "S3_SECRET_KEY", "API_KEYS"}
    assert {used[name] for name in secrets} == {":?"}
    example = (ROOT / ".env.example").read_text()
    given = dict(re.findall(r"^#?(\w+)=(.*)$", example, flags=re.MULTILINE))
    assert given.keys() == used.keys()
    assert {given[name] for name in secrets} == {""}


def test_the_example_is_not_read_as_settings_of_a_command_in_the_same_folder() -> None:
    assert "TIDEMILL_" not in (ROOT / ".env.example").read_text()


@pytest.mark.parametrize("name", OURS)
def test_the_commands_are_understood(name: str) -> None:
    command, *options = OURS[name]["command"]
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    with group.commands[command].make_context(command, list(options)) as context:
        assert context.args == []


@pytest.mark.parametrize("name", OURS)
def test_the_settings_are_those_of_the_stack(name: str, stack: Stack) -> None:
    environment: dict[str, str] = OURS[name]["environment"]
    assert environment.keys() - CONTAINER_SETTINGS == stack.environment.keys()
    assert {key.removeprefix("TIDEMILL_").lower() for key in environment} <= NAMES
    same = ("S3_REGION", "S3_ADDRESSING_STYLE", "S3_ACCESS_KEY_ID", "OBJECT_STORE_URL")
    for key in (f"TIDEMILL_{name}" for name in same):
        assert environment[key] == stack.environment[key]


@pytest.mark.parametrize("name", OURS)
def test_the_settings_are_valid_once_the_secrets_are_filled_in(name: str) -> None:
    filled: dict[str, Any] = {
        key.removeprefix("TIDEMILL_").lower(): VARIABLE.sub("s3cr3t", str(value))
        for key, value in OURS[name]["environment"].items()
    }
    settings = Settings.load(env_file=None, **filled)
    assert not settings.storage.embedded
    assert settings.api.keys_by_secret == {"s3cr3t": "default"}
    kept = settings.storage
    hosts = f"{kept.database_url} {kept.broker_url} {kept.s3_endpoint_url}"
    named = set(re.findall(r"(?:@|http://)(\w+):", hosts))
    assert named == {"postgres", "valkey", "seaweedfs"} <= SERVICES.keys()


def test_the_processes_are_those_of_the_stack(stack: Stack) -> None:
    for name, process in {
        "api": stack.api,
        "worker": stack.workers[0],
        "reconciler": stack.reconciler,
    }.items():
        command = [word for word in OURS[name]["command"] if word[0] not in "0123456789"]
        ours = [word for word in process.command[3:] if word[0] not in "0123456789"]
        assert command == ours


def test_the_object_store_runs_as_it_does_in_the_stack(stack: Stack) -> None:
    theirs = {flag for flag in SERVICES["seaweedfs"]["command"] if "port" not in flag}
    ours = {flag for flag in stack.seaweed.command[1:] if "port" not in flag}
    differ = {flag.partition("=")[0] for flag in theirs ^ ours}
    assert differ == {"-dir", "-s3.ip.bind", "-master.volumeSizeLimitMB"}


def test_a_worker_is_given_the_time_that_its_drain_takes() -> None:
    grace = OURS["worker"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Settings.load(env_file=None).worker.drain_seconds + 10


def test_only_the_api_is_published_and_only_here() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert list(published) == ["api"]
    assert VARIABLE.sub(r"\3", published["api"][0]) == "127.0.0.1:8000:8000"


def test_data_is_in_named_volumes() -> None:
    named = set(yaml.safe_load(COMPOSE)["volumes"])
    for name, service in SERVICES.items():
        sources = {volume.partition(":")[0] for volume in service.get("volumes", [])}
        assert sources <= named
        assert sources or name in {"api", "reconciler"}


def test_compose_itself_accepts_it(tmp_path: Path) -> None:
    tool = _compose()
    if tool is None:
        pytest.skip("needs docker-compose, or docker with its compose plugin")
    filled = tmp_path / "env"
    example = (ROOT / ".env.example").read_text()
    filled.write_text(re.sub(r"^(\w+)=$", r"\1=s3cr3t", example, flags=re.MULTILINE))
    outside = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}

    def config(env_file: Path, *options: str) -> "subprocess.CompletedProcess[str]":
        where = ["--file", str(ROOT / "compose.yaml"), "--env-file", str(env_file)]
        return subprocess.run(
            [*tool, *where, *options], env=outside, capture_output=True, text=True, check=False
        )

    assert config(filled, "config", "--quiet").returncode == 0
    listed = config(filled, "--profile", "gpu", "config", "--services")
    assert set(listed.stdout.split()) == SERVICES.keys()
    refused = config(ROOT / ".env.example", "config", "--quiet")
    assert refused.returncode != 0
    assert "set it in .env" in refused.stderr


def _compose() -> list[str] | None:
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return None
