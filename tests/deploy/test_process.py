"""Processes that are started, watched and ended, without any server."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from stack import local
from stack.errors import FolderUnusable, NotReady, NotRunning, PortInUse, ProgramMissing
from stack.process import Managed

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Managed]]:
    made: list[Managed] = []

    def of(script: str, **options: object) -> Managed:
        process = Managed("part", ["/bin/sh", "-c", script], folder=tmp_path, **options)  # type: ignore[arg-type]
        made.append(process)
        return process

    yield of
    for process in made:
        process.kill()


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends within this time. A zombie has ended."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_it_is_started_when_it_says_so(make: Callable[..., Managed]) -> None:
    process = make("sleep 0.2; echo ready now; exec sleep 60", ready="ready .ow").start()
    assert process.healthy()
    assert process.log_tail() == "ready now"
    assert process.stop() == -signal.SIGTERM
    assert not process.healthy()
    with pytest.raises(NotRunning):
        process.signal(signal.SIGTERM)


def test_one_that_ends_instead_shows_its_last_words(make: Callable[..., Managed]) -> None:
    process = make("echo no such thing; exit 3", ready="ready")
    with pytest.raises(NotReady, match=r"code 3(.|\n)*no such thing"):
        process.start()


def test_one_that_is_never_ready_is_not_waited_for_for_ever(make: Callable[..., Managed]) -> None:
    process = make("exec sleep 60", ready="ready", start_seconds=0.2)
    with pytest.raises(NotReady, match="was not ready"):
        process.start()


def test_a_restart_waits_for_the_new_ready_line(make: Callable[..., Managed]) -> None:
    process = make("sleep 0.2; echo ready $$; exec sleep 60", ready="ready").start()
    before = process.pid
    process.restart()
    assert process.pid != before
    assert process.log_tail() == f"ready {process.pid}"
    assert process.starts == 2
    assert gone(before)


def test_stop_kills_what_does_not_listen(make: Callable[..., Managed]) -> None:
    process = make("trap '' TERM; echo ready; while :; do sleep 0.1; done", ready="ready").start()
    assert process.stop(timeout=0.3) == -signal.SIGKILL


def test_stop_reaches_one_that_is_frozen(make: Callable[..., Managed]) -> None:
    process = make("trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done", ready="ready")
    process.start().signal(signal.SIGSTOP)
    assert process.running
    assert process.stop(timeout=10) == 7


def test_it_is_told_to_stop_only_once(make: Callable[..., Managed]) -> None:
    script = "trap 'echo told' TERM; echo ready; while :; do sleep 0.1; done"
    process = make(script, ready="ready").start()
    process.ask_to_stop()
    time.sleep(0.5)
    process.stop(timeout=0.5)
    assert process.log_tail().count("told") == 1


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_what_it_started_ends_with_it(make: Callable[..., Managed], end: str) -> None:
    # One child in its process group, and one that has left it.
    process = make(
        "sleep 61 & setsid sleep 62 & sleep 0.2; echo ready; wait", ready="ready"
    ).start()
    children = [child.pid for child in process.family()]
    assert len(children) == 2
    getattr(process, end)()
    assert all(gone(child) for child in children)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_a_parent_that_cannot_clean_up(
    tmp_path: Path, number: signal.Signals
) -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(DEPLOY)!r})
from pathlib import Path
from stack.process import Managed
command = ["/bin/sh", "-c", "sleep 63 & echo child $!; wait"]
part = Managed("part", command, folder=Path({str(tmp_path)!r}), ready="child").start()
print(part.pid, part.log_tail().split()[1], flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert all(psutil.pid_exists(pid) for pid in pids)
        parent.send_signal(number)
    assert all(gone(pid) for pid in pids)


def test_a_folder_belongs_to_one_stack(tmp_path: Path) -> None:
    with local.own_folder(tmp_path / "new"):
        assert local.is_held(tmp_path / "new")
        with (
            pytest.raises(FolderUnusable, match=f"process {os.getpid()}"),
            local.own_folder(tmp_path / "new"),
        ):
            pass
    assert not local.is_held(tmp_path / "new")
    with local.own_folder(tmp_path / "new"):
        pass


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(FolderUnusable, match="Not a directory"),
        local.own_folder(tmp_path / "file" / "folder"),
    ):
        pass


def test_free_ports_differ_and_are_none_that_connections_take() -> None:
    ports = local.free_ports(50)
    assert len(set(ports)) == 50
    end = int(local.OUTGOING_PORTS.read_text().split()[0]) if os.name == "posix" else 0
    assert all(1024 < port < end for port in ports)


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(PortInUse, match=rf"Port {port} .*--port"):
            local.check_port_free("127.0.0.1", port)


def test_a_secret_is_kept_and_for_its_owner_alone(tmp_path: Path) -> None:
    secret = local.kept_secret(tmp_path / "secret")
    assert len(secret) >= 32
    assert local.kept_secret(tmp_path / "secret") == secret
    assert local.kept_secret(tmp_path / "other") != secret
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_a_program_that_is_missing_names_its_package() -> None:
    with pytest.raises(ProgramMissing, match="the package that-has-it"):
        local.program("no-such-program", "the package that-has-it")
