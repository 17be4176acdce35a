"""One process at a time in a home folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.errors import ConfigurationError, HomeInUse
from storage.home import Home, HomeOwner, read_owner


def test_a_home_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "new" / "home"
    assert read_owner(path) is None
    with Home.lock(path) as home:
        assert read_owner(path) == HomeOwner(os.getpid())
        home.announce("http://127.0.0.1:8000")
        assert read_owner(path) == HomeOwner(os.getpid(), "http://127.0.0.1:8000")
        with pytest.raises(HomeInUse, match=rf"process {os.getpid()}, .*http://127.0.0.1:8000"):
            Home.lock(path)
    assert read_owner(path) is None
    home.release()
    Home.lock(path).release()
    with pytest.raises(ConfigurationError):
        home.announce("http://late")


HOLD = """
import sys, time
from pathlib import Path
from storage.home import Home
home = Home.lock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


def test_a_killed_process_holds_nothing(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert read_owner(tmp_path) == HomeOwner(process.pid)
        with pytest.raises(HomeInUse, match=f"process {process.pid}"):
            Home.lock(tmp_path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert read_owner(tmp_path) is None
    Home.lock(tmp_path).release()


def test_a_child_process_does_not_inherit_the_lock(tmp_path: Path) -> None:
    home = Home.lock(tmp_path)
    # Every descriptor that can be inherited is, so the lock's own must not be one of them.
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            home.release()
            assert child.poll() is None
            assert read_owner(tmp_path) is None
            with Home.lock(tmp_path):
                assert read_owner(tmp_path) == HomeOwner(os.getpid())
        finally:
            child.kill()


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigurationError):
        Home.lock(tmp_path / "file")
    assert read_owner(tmp_path / "file") is None
