"""Files that are being written, before they get their name; those of killed writers go.

A writer locks its file as long as it lives, whatever ends it. So a file without a lock is nobody's,
and is deleted however young it is.
"""

import fcntl
import io
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4


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
    """Delete files that nobody writes, or that are older than so many seconds; how many."""
    before = time.time() - older_than
    swept = 0
    with suppress(FileNotFoundError):
        for path in folder.iterdir():
            with suppress(FileNotFoundError):
                swept += _delete(path, before)
    return swept


def _locked(folder: Path) -> tuple[Path, io.FileIO, int]:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / uuid4().hex
        file = path.open("xb", buffering=0)
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
        if os.fstat(descriptor).st_mtime >= before and not _free(descriptor):
            return False
        path.unlink()
    finally:
        os.close(descriptor)
    return True


def _free(descriptor: int) -> bool:
    """Whether no writer has locked the file; from now on this process has, until it closes it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
