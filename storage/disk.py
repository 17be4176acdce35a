"""The operating system's errors about a disk, as errors of storage."""

import errno

from storage.errors import OutOfSpace, StorageError

# No space, no quota, and the largest size that a process may give a file.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def disk_error(error: OSError, what: str) -> StorageError:
    """The error for ``what`` ("The folder …"), a place that is not the object store."""
    if error.errno in FULL:
        return OutOfSpace(f"{what} is full; free some space and try again.")
    return StorageError(f"{what} cannot be used: {error.strerror or 'input/output error'}.")
