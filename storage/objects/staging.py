"""Files that are being written, before they get their name; those of killed writers go.

A writer locks its file as long as it lives, whatever ends it. So a file without a lock is nobody's,
and is deleted however young it is; one with a lock stays, however old it is. Only where the file
system has no locks does the age tell. Files of other names are not ours.
"""

import fcntl
import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

_NAME = re.compile("[0-9a-f]{32}")


@contextmanager
def staging_file(folder: Path) -> Iterator[tuple[Path, io.FileIO]]:
    """A new file in ``folder``, and its path; both are gone at the end of the context.

    The caller may close the file before, and may give it another name. Raises `OSError`.
    """
    path, file, lock = _locked(folder)
    try:
        yield path, file
    finally:
        with suppress(OSError):  # the caller has closed it where that matters
            file.close()
        path.unlink(missing_ok=True)
        os.close(lock)


def sweep(folder: Path, older_than: float) -> int:
    """Delete the files that nobody writes; how many there were.

    Where there are no locks, those that are older than so many seconds.
    """
    before = time.time() - older_than
    swept = 0
    with suppress(FileNotFoundError):
        for path in filter(_is_own, folder.iterdir()):
            with suppress(FileNotFoundError):
                swept += _delete(path, before)
    return swept


def _locked(folder: Path) -> tuple[Path, io.FileIO, int]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid4().hex
        try:
            file = path.open("xb", buffering=0)
        except FileNotFoundError:  # the folder, then empty, was removed in between
            continue
        # A descriptor of its own, as the file is closed before it is published.
        lock = os.dup(file.fileno())
        with suppress(OSError):  # a file system without locks: only age tells there
            fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return path, file, lock
        # It was swept before it was locked.
        file.close()
        os.close(lock)


def _delete(path: Path, before: float) -> bool:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if not _dead(descriptor, before):
            return False
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def _dead(descriptor: int, before: float) -> bool:
    """Whether nobody writes the file; from now on this process locks it, until it closes it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return os.fstat(descriptor).st_mtime < before
    return True


def _is_own(path: Path) -> bool:
    return _NAME.fullmatch(path.name) is not None
