"""What every server of the stack has: a port, a folder that outlives its kills, and settings."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from stack.local import free_ports, kept_secret
from stack.process import Managed

HOST = "127.0.0.1"
NAME = "tidemill"  # of the user, and of the bucket
HEALTH_SECONDS = 2


class Server(Managed):
    """A server on a port and with a secret of its own, both the same over every restart.

    The packages carry the programs, which are driven directly: their own helpers neither keep a
    port nor clean up after a kill.

    Args:
        folder: what the server keeps; made when it is not there.
        port: by default a free one.
        logs: the folder of its log file; by default ``folder``.

    Attributes:
        port: where it listens, on 127.0.0.1 alone.
        secret: what its clients must know.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        port: int | None = None,
        logs: Path | None = None,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        folder = folder.absolute()
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__(name, command, folder=folder, logs=logs, environment=environment)
        self.port = free_ports(1)[0] if port is None else port
        self.secret = kept_secret(folder / "secret")

    @property
    def settings(self) -> dict[str, str]:
        """Tidemill's settings for this server: names in lower case, and their values."""
        return self.settings_at(self.port)

    @abstractmethod
    def settings_at(self, port: int) -> dict[str, str]:
        """The settings for something at ``port`` that forwards to this server, such as a proxy."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where a client finds it."""
