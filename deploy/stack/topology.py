"""The topology of compose.yaml, as processes of this machine.

The commands and the settings are those of compose.yaml, which a test compares.
"""

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self, TypedDict

import httpx

from stack.local import free_ports, kept_secret, own_folder
from stack.process import Managed
from stack.servers import Postgres, Seaweed, Server, Valkey

HOST = "127.0.0.1"
PREFIX = "TIDEMILL_"
HEALTH_SECONDS = 2.0


class Place(TypedDict):
    """Where a process works and logs, as `Managed` wants it."""

    folder: Path
    logs: Path


class Api(Managed):
    """A ``tidemill api`` process."""

    url = ""

    def healthy(self) -> bool:
        """Whether it answers, and its database and object store do."""
        if not super().healthy():
            return False
        try:
            return httpx.get(f"{self.url}/readyz", timeout=HEALTH_SECONDS).is_success
        except httpx.HTTPError:
            return False


class Stack:
    """PostgreSQL, Valkey, SeaweedFS, and Tidemill's API, workers and reconciler before them.

    Use it as a context manager, or call `start` and `stop`. Each process can be killed, stopped
    and restarted by itself meanwhile, and all of them end when this process ends. The folder keeps
    all data: a later stack in the same folder goes on where this one stopped.

    Args:
        folder: for the servers' data and the logs; made when it is not there.
        workers: how many worker processes.
        port: the API's; by default a free one.
        worker_options: for ``tidemill worker``, e.g. ``("--concurrency", "2")``.
        **settings: Tidemill's settings, e.g. ``lease_seconds=10``.

    Attributes:
        postgres, valkey, seaweed: the servers; their ports are known before they start.
        api, reconciler: the processes.
        workers: the worker processes.
        environment: the ``TIDEMILL_…`` variables of all processes.
    """

    def __init__(
        self,
        folder: Path,
        workers: int = 1,
        *,
        port: int | None = None,
        worker_options: Sequence[str] = (),
        **settings: object,
    ) -> None:
        self._held = ExitStack()
        self.folder = self._held.enter_context(own_folder(folder.absolute()))
        self.logs = self.folder / "logs"
        self.postgres = Postgres(self.folder / "postgres", logs=self.logs)
        self.valkey = Valkey(self.folder / "valkey", logs=self.logs)
        self.seaweed = Seaweed(self.folder / "seaweedfs", logs=self.logs)
        self.port = free_ports(1)[0] if port is None else port
        self.environment: dict[str, str] = {}
        # In a folder of their own the processes find no .env file of somebody else's.
        self._place: Place = {"folder": self.folder / "home", "logs": self.logs}
        listen = ("--host", HOST, "--port", str(self.port))
        self.api = Api("api", _command("api", *listen), ready="Tidemill listens on ", **self._place)
        self.api.url = self.url
        work = _command("worker", *worker_options)
        self.workers = [
            Managed(f"worker-{number}", work, ready="Worker .+ is ready", **self._place)
            for number in range(1, workers + 1)
        ]
        self.reconciler = Managed(
            "reconciler", _command("reconciler"), ready="Reconciler .+ is ready", **self._place
        )
        self.override(home=self.folder / "home", api_keys=kept_secret(self.folder / "api-key"))
        for server in self.servers:
            self.override(**server.settings)
        self.override(**settings)

    @property
    def url(self) -> str:
        """Where the API listens."""
        return f"http://{HOST}:{self.port}"

    @property
    def client_url(self) -> str:
        """The base URL of the ``openai`` client and of the ``tidemill`` command."""
        return f"{self.url}/v1"

    @property
    def api_key(self) -> str:
        """The first API key."""
        return self.environment[f"{PREFIX}API_KEYS"].split(",")[0].rpartition(":")[2].strip()

    @property
    def servers(self) -> list[Server]:
        """The servers."""
        return [self.postgres, self.valkey, self.seaweed]

    @property
    def processes(self) -> list[Managed]:
        """Tidemill's processes."""
        return [self.api, *self.workers, self.reconciler]

    @property
    def everything(self) -> list[Managed]:
        """Servers and processes."""
        return [*self.servers, *self.processes]

    def override(self, **settings: object) -> None:
        """Change settings of the processes that are started from now on.

        A proxy between them and a server takes the server's place so:
        ``stack.override(**stack.seaweed.settings_at(proxy.port))``.
        """
        self.environment |= {PREFIX + key.upper(): str(value) for key, value in settings.items()}
        outside = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        for process in self.processes:
            process.environment = outside | self.environment | {"PYTHONUNBUFFERED": "1"}

    def start(self) -> Self:
        """Start everything and wait until it is healthy.

        Raises:
            NotReady: something did not start; all the rest is stopped again.
        """
        self.start_servers()
        return self.start_processes()

    def start_servers(self) -> Self:
        """Start the servers alone; see `start`."""
        return self._start(self.servers)

    def start_processes(self) -> Self:
        """Start the API, the workers and the reconciler; see `start`."""
        return self._start(self.processes)

    def stop(self) -> None:
        """Stop everything, the servers last, and give the folder up."""
        groups: list[Sequence[Managed]] = [self.processes, self.servers]
        for group in groups:
            for process in group:
                process.ask_to_stop()
            for process in group:
                process.stop()
        self._held.close()

    def kill(self) -> None:
        """The power cut: SIGKILL to everything at once. `start` brings it back."""
        for process in self.everything:
            if process.running:
                process.signal(signal.SIGKILL)
        for process in self.everything:
            process.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _start(self, group: Sequence[Managed]) -> Self:
        try:
            for process in group:
                process.launch()
            for process in group:
                process.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self


def _command(*words: str) -> list[str]:
    return [sys.executable, "-m", "tidemill.cli.main", *words]
