"""The data folder of the embedded mode, and the lock that lets one process at a time use it.

The kernel drops the lock when its process ends, even by a kill, so it is never stale.
"""

import fcntl
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from storage.errors import ConfigurationError, HomeInUse


@dataclass(frozen=True, slots=True)
class HomeOwner:
    """The process that uses a home folder, and its URL once it listens."""

    pid: int
    url: str | None = None


class Home:
    """A home folder that this process has locked until `release` or its own end."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor: int | None = descriptor

    @classmethod
    def lock(cls, path: Path) -> "Home":
        """Lock the folder, made if need be.

        Raises:
            HomeInUse: another process has locked it; the message names its pid and URL.
            ConfigurationError: the folder cannot be made or written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(_lock_file(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ConfigurationError(f"The home folder {path} cannot be written.") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _parse(os.pread(descriptor, 4096, 0))
            os.close(descriptor)
            raise HomeInUse(_in_use(path, owner)) from None
        home = cls(path, descriptor)
        home._write(HomeOwner(os.getpid()))
        return home

    def announce(self, url: str) -> None:
        """Tell other processes where this one listens."""
        self._write(HomeOwner(os.getpid(), url))

    def release(self) -> None:
        """Unlock the folder. Harmless when done twice."""
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "Home":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def _write(self, owner: HomeOwner) -> None:
        if self._descriptor is None:
            raise ConfigurationError("The home folder is not held any more.")
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(asdict(owner)).encode(), 0)


def read_owner(path: Path) -> HomeOwner | None:
    """The process that has locked the home folder now, or ``None``.

    Its pid is 0 for a moment, after it took the lock and before it wrote its pid.
    """
    try:
        descriptor = os.open(_lock_file(path), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _parse(os.pread(descriptor, 4096, 0)) or HomeOwner(0)
    else:
        return None
    finally:
        os.close(descriptor)


def _lock_file(path: Path) -> Path:
    return path / "lock"


def _parse(data: bytes) -> HomeOwner | None:
    with suppress(ValueError, KeyError, TypeError):
        fields = json.loads(data)
        return HomeOwner(int(fields["pid"]), fields["url"])
    return None


def _in_use(path: Path, owner: HomeOwner | None) -> str:
    who = f"process {owner.pid}" if owner else "another process"
    where = f", which listens at {owner.url}" if owner and owner.url else ""
    return f"{path} is used by {who}{where}."
