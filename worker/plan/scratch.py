"""Folders for a planner's temporary files; those that a killed planner left are removed later."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

PREFIX = "tidemill-plan-"

log = structlog.get_logger(__name__)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty folder, deleted at the end of the context.

    Raises:
        OSError: the system's folder for temporary files cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def sweep() -> None:
    """Remove the folders that this user's ended processes left."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        # If another process has this id by now, the folder only stays for longer.
        if pid.isdecimal() and _gone(int(pid)) and _mine(left):
            shutil.rmtree(left, ignore_errors=True)
            log.info("plan_files_swept", folder=str(left))


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _mine(folder: Path) -> bool:
    try:
        return folder.stat().st_uid == os.getuid()
    except OSError:
        return False
