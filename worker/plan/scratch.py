"""Folders for a planner's temporary files, removed even after planners that were killed."""

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
    """An empty folder that goes with the context.

    Raises:
        OSError: the system's folder for temporary files cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-") as folder:
        yield Path(folder)


def sweep() -> None:
    """Remove the folders of this user's processes that are gone."""
    for left in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        number = left.name.removeprefix(PREFIX).partition("-")[0]
        # A number that was given to another process meanwhile only keeps the folder for longer.
        if number.isdecimal() and _gone(int(number)) and _mine(left):
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
