"""``python -m stack``, as a developer uses it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

pytestmark = [pytest.mark.servers, pytest.mark.slow]

DEPLOY = str(Path(__file__).parents[2] / "deploy")
STACK = [sys.executable, "-m", "stack"]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")}


def run(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*STACK, *words],
        env=ENVIRONMENT | {"PYTHONPATH": DEPLOY},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_it_runs_beside_nobody_starts_again_what_dies_and_leaves_nothing(tmp_path: Path) -> None:
    folder = str(tmp_path / "stack")
    assert run("status", "--folder", folder).returncode == 1
    command = [*STACK, "up", "--json", "--port", "0", "--folder", folder]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT | {"PYTHONPATH": DEPLOY},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as stack:
        try:
            assert stack.stdout is not None
            report: dict[str, Any] = json.loads(stack.stdout.readline())
            assert httpx.get(f"{report['url']}/readyz").is_success
            key = {"Authorization": f"Bearer {report['api_key']}"}
            assert httpx.get(f"{report['client_url']}/batches").status_code == 401
            assert httpx.get(f"{report['client_url']}/batches", headers=key).is_success
            assert run("status", "--folder", folder).returncode == 0
            second = run("up", "--port", "0", "--folder", folder)
            assert second.returncode == 1
            assert f"used by another stack, process {stack.pid}" in second.stderr
            killed = report["processes"]["reconciler"]
            os.kill(killed, signal.SIGKILL)
            report = _report_without(folder, killed)
        finally:
            stack.send_signal(signal.SIGINT)
            _, said = stack.communicate(timeout=60)
    assert stack.returncode == 0
    assert "reconciler ended with code -9" in said
    assert not any(psutil.pid_exists(pid) for pid in report["processes"].values())
    assert run("status", "--folder", folder).returncode == 1


def test_a_port_that_is_taken_starts_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        done = run("up", "--port", port, "--folder", str(tmp_path / "stack"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: Port {port}")
    assert not (tmp_path / "stack").exists()


def _report_without(folder: str, pid: int) -> dict[str, Any]:
    """The stack's report once it shows other processes than this one, all of them alive."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done = run("status", "--json", "--folder", folder)
        if done.returncode == 0:
            report: dict[str, Any] = json.loads(done.stdout)
            if pid not in report["processes"].values():
                return report
        time.sleep(0.2)
    raise AssertionError("it was not started again")
