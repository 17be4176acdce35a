"""The real stack, with a proxy each in front of its object store and its database, and tenants."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from integration.harness import tiny
from integration.harness.faults import Victims
from integration.harness.proxy import Proxy
from integration.harness.tenant import Tenant
from stack.errors import StackError
from stack.topology import Stack

HOST = "127.0.0.1"
KEYS = {"alpha": "key-of-alpha", "beta": "key-of-beta"}


@dataclass(frozen=True)
class Arena:
    """A stack that runs, the proxies between its parts, and its tenants."""

    stack: Stack
    s3: Proxy
    postgres: Proxy
    tenants: tuple[Tenant, ...]

    def victims(self, longest: float) -> Victims:
        """Everything that may be hit; processes are stopped for ``longest`` seconds at most."""
        return Victims(self.stack, self.s3, self.postgres, longest)

    def revive(self) -> list[str]:
        """Let everything run again; returns what would not."""
        self.s3.set(None)
        self.postgres.set(None)
        failed = []
        for part in self.stack.everything:
            part.launch()
        for part in self.stack.everything:
            try:
                part.wait_ready()
            except StackError as error:
                failed.append(str(error))
        return failed

    def count_in_logs(self, event: str) -> int:
        """How often the workers have logged an event since they were first started."""
        count = 0
        for worker in self.stack.workers:
            with worker.log_path.open("rb") as log:
                count += sum(event.encode() in line for line in log)
        return count


@contextmanager
def open_arena(folder: Path, workers: int = 1, **settings: Any) -> Iterator[Arena]:
    """Start everything in ``folder``; ``settings`` are Tidemill's."""
    keys = ",".join(f"{name}:{key}" for name, key in KEYS.items())
    checkpoint = tiny.make_checkpoint(folder / "checkpoint")
    with ExitStack() as held:
        stack = Stack(folder / "stack", workers, api_keys=keys, **settings)
        held.callback(stack.stop)
        stack.start_servers()
        s3 = held.enter_context(Proxy(HOST, stack.seaweed.port))
        postgres = held.enter_context(Proxy(HOST, stack.postgres.port))
        stack.override(**stack.seaweed.settings_at(s3.port))
        stack.override(**stack.postgres.settings_at(postgres.port))
        add_model(stack, checkpoint)
        one_core_each(stack)
        stack.start_processes()
        tenants = tuple(Tenant(name, stack.client_url, key) for name, key in KEYS.items())
        for tenant in tenants:
            held.callback(tenant.close)
        yield Arena(stack, s3, postgres, tenants)


def one_core_each(stack: Stack) -> None:
    """Keep the workers out of each other's way, as on machines of their own.

    Engines that share cores wait for each other's threads, and are many times slower.
    """
    cores = sorted(os.sched_getaffinity(0))
    for number, worker in enumerate(stack.workers):
        core = cores[number % len(cores)]
        worker.command = ["taskset", "--cpu-list", str(core), *worker.command]


def add_model(stack: Stack, checkpoint: Path) -> None:
    """Let jobs name the tiny model."""
    subprocess.run(
        [*stack.api.command[:3], "models", "add", tiny.NAME, str(checkpoint)],
        env=stack.api.environment,
        cwd=stack.folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
