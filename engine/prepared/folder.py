"""The folder of kept files: where it is, and which of them go where room is short. No torch."""

import fcntl
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shutil import disk_usage

SUFFIX = ".safetensors"
UNFINISHED = ".tmp"
MOST_BYTES = 8 * 2**30  # of all kept files together
DISK_SHARE = 10  # they take no more than this fraction of what the disk has for them


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A kept file: its size in bytes, and when it was last used (nanoseconds)."""

    path: Path
    bytes: int
    used_ns: int


def weights_folder() -> Path | None:
    """Where prepared weights are kept, which need not exist; ``None`` where there is no home."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        place = cache if cache.is_absolute() else Path.home() / ".cache"
    except RuntimeError:
        return None
    return place / "tidemill" / "weights"


def kept_files(place: Path) -> list[KeptFile]:
    """The kept files of a folder, the least recently used first."""
    found = []
    for path in place.glob(f"*{SUFFIX}"):
        with suppress(FileNotFoundError):  # another process made room
            state = path.stat()
            found.append(KeptFile(path, state.st_size, state.st_mtime_ns))
    return sorted(found, key=lambda each: each.used_ns)


def make_room(place: Path, size: int) -> bool:
    """Remove the least recently used files until ``size`` more bytes are within the bounds.

    Returns:
        Whether they are. Nothing is removed for what never could be.

    Raises:
        OSError: the folder cannot be read or changed.
    """
    kept = kept_files(place)
    total = sum(each.bytes for each in kept)
    most = min(MOST_BYTES, (disk_usage(place).free + total) // DISK_SHARE)
    if size > most:
        return False
    for oldest in kept:
        if total + size <= most:
            break
        oldest.path.unlink(missing_ok=True)
        total -= oldest.bytes
    return True


def remove_unfinished(place: Path) -> None:
    """Remove what processes left that ended while they wrote; whoever writes holds a lock."""
    for path in place.glob(f"*{UNFINISHED}"):
        with suppress(OSError), path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
