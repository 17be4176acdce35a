"""What the stack takes from this machine: ports, secrets, programs and a folder of its own."""

import fcntl
import os
import random
import secrets
import shutil
import socket
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from stack.errors import FolderUnusable, PortInUse, ProgramMissing, StackError

LOWEST_PORT = 10_240
OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_ports(count: int) -> list[int]:
    """Ports on which nothing listens, below the range that outgoing connections use.

    Port 0 would be simpler, but takes one of that range: while a killed server is down, a client's
    connection (even one to that very port, by itself) could hold it, and the restart would fail.
    """
    try:
        end = int(OUTGOING_PORTS.read_text().split()[0])
    except (OSError, ValueError):
        end = 32_768
    candidates = range(LOWEST_PORT, max(end, LOWEST_PORT + 10_000))
    found: list[int] = []
    with ExitStack() as held:
        for port in random.SystemRandom().sample(candidates, k=min(len(candidates), 1_000)):
            if len(found) == count:
                return found
            try:
                held.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            found.append(port)
    raise StackError(f"No {count} free ports between {candidates.start} and {candidates.stop}.")


def kept_secret(path: Path) -> str:
    """The secret in this file, made on the first call; only the file's owner can read it."""
    if not path.exists():
        with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(secrets.token_hex(16))
    return path.read_text()


def program(name: str, package: str) -> str:
    """The path of a program beside this Python or on the PATH.

    Raises:
        ProgramMissing: it is nowhere; the message says that it comes with ``package``.
    """
    places = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)])
    found = shutil.which(name, path=places)
    if found is None:
        raise ProgramMissing(f"There is no program '{name}' here. It comes with {package}.")
    return found


@contextmanager
def own_folder(folder: Path) -> Iterator[Path]:
    """Make a stack's folder and lock it, so that no other stack uses it meanwhile.

    Raises:
        FolderUnusable: it cannot be written, or another stack holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("a+")
    except OSError as error:
        raise FolderUnusable(
            f"The folder {folder} cannot be written: {error.strerror}. Choose another."
        ) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise FolderUnusable(
                f"The folder {folder} is used by another stack, process {lock.read().strip()}. "
                "Stop that one, or choose another folder."
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        yield folder


def is_held(folder: Path) -> bool:
    """Whether a stack holds this folder now."""
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def check_port_free(host: str, port: int) -> None:
    """See that a port can be listened on.

    Raises:
        PortInUse: another program listens there.
    """
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise PortInUse(
            f"Port {port} of {host} cannot be had: {os.strerror(error.errno or 0)}. Choose another "
            "with --port, or --port 0 for any free one."
        ) from error
