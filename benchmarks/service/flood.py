"""What others notice while somebody floods the API without a key: latency, failures and memory.

The API runs in a process of its own with the default settings, the flood in another one. A client
asks for the list of batches all the while, each time on a new connection, first with nobody else
there and then beside each flood.

    python benchmarks/service/flood.py
    python benchmarks/service/flood.py --pick "idle|heads" --seconds 10
"""

import argparse
import asyncio
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import psutil

from api.app import create_app
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups
from tidemill.serve.logs import start_logs
from tidemill.serve.server import ServerThread, listen

HOST = "127.0.0.1"
SETTLE_SECONDS = 2.0
PAUSE_SECONDS = 0.02
ATTACKERS = 1_200
HEAD = b"Host: localhost\r\n"
FORM = b"POST /v1/files HTTP/1.1\r\nContent-Type: multipart/form-data; boundary=b\r\n" + HEAD
FIELD = b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n"
FIELDS = 160_000

Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Connect, and say nothing."""
    await reader.read()


async def slow_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A head of one byte a second."""
    writer.write(b"GET /v1/files?a=")
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(1)


async def half_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A request that announces a body and sends none of it."""
    writer.write(FORM + b"Content-Length: 1000000\r\n\r\n")
    await reader.read()


async def huge_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A header of 64 MB."""
    writer.write(b"GET / HTTP/1.1\r\n" + HEAD + b"X: ")
    for _ in range(1_024):
        writer.write(b"a" * 65_536)
        await writer.drain()


async def form_fields(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A form of 160,000 fields."""
    body = FIELD * FIELDS
    writer.write(FORM + b"Content-Length: %d\r\n\r\n" % len(body))
    writer.write(body)
    await writer.drain()
    await reader.read()


async def small_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An upload in chunks of one byte."""
    writer.write(FORM + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(1_000):
        writer.write(b"1\r\na\r\n" * 1_000)
        await writer.drain()


# Each with the number of clients, and the mean pause of each between two connections.
FLOODS: dict[str, tuple[Attack, int, float]] = {
    "idle connections": (idle, ATTACKERS, 5.0),
    "slow heads": (slow_head, ATTACKERS, 5.0),
    "half bodies": (half_body, ATTACKERS, 5.0),
    "huge heads": (huge_head, 4, 1.0),
    "form fields": (form_fields, 4, 1.0),
    "small chunks": (small_chunks, 4, 1.0),
}


@dataclass
class Seen:
    """What a client beside the flood noticed."""

    latencies: list[float] = field(default_factory=list)
    failures: int = 0

    def quantile(self, share: float) -> float:
        """The latency in milliseconds below which this share of the requests was."""
        ordered = sorted(self.latencies)
        return 1_000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    @property
    def median(self) -> float:
        """In milliseconds."""
        return 1_000 * statistics.median(self.latencies)


def serve(home: Path) -> None:
    """Run the API until the process is ended; the first line out is its port."""
    settings = Settings.load(home=home, env_file=None)
    start_logs(settings)
    stores = Stores.open(settings.storage)
    stores.database.migrate()
    app = create_app(settings.api, stores=stores, wakeups=LocalWakeups())
    with listen(HOST, 0) as listener, ServerThread(app, listener, settings.api):
        print(listener.getsockname()[1], flush=True)
        threading.Event().wait()


async def attack(name: str, port: int) -> None:
    """Flood the API until the process is ended."""
    one, clients, pause = FLOODS[name]
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def client(number: int) -> None:
        await asyncio.sleep(number / clients)
        while True:
            with suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, port)
                try:
                    await one(reader, writer)
                finally:
                    writer.close()
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))

    print("begun", flush=True)
    await asyncio.gather(*map(client, range(clients)))


@contextmanager
def child(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """This script in a process of its own."""
    command = [sys.executable, __file__, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def list_batches(port: int) -> bool:
    """Whether the list came, on a connection of its own."""
    connection = HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", "/v1/batches")
        response = connection.getresponse()
        response.read()
        return response.status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def watch(port: int, seconds: float) -> Seen:
    """Ask for the list of batches again and again."""
    seen = Seen()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.perf_counter()
        seen.failures += not list_batches(port)
        seen.latencies.append(time.perf_counter() - began)
        time.sleep(PAUSE_SECONDS)
    return seen


def row(name: str, seen: Seen, calm: Seen, memory: int, connections: int) -> str:
    """A row of the table."""
    cells = [
        name,
        f"{len(seen.latencies)}",
        f"{seen.failures}",
        f"{seen.median:.1f}",
        f"{seen.quantile(0.95):.1f}",
        f"{seen.median / calm.median:.2f}",
        f"{seen.quantile(0.95) / calm.quantile(0.95):.2f}",
        f"{connections}",
        f"{memory / 2**20:.0f}",
    ]
    return f"| {' | '.join(cells)} |"


def measure(picked: list[str], seconds: float) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as home, child("--serve", home) as server:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        process = psutil.Process(server.pid)
        watch(port, 2.0)
        print("| flood | requests | failed | median ms | p95 ms | × calm | × calm p95 |", end="")
        print(" connections | MiB |\n|---|---|---|---|---|---|---|---|---|")
        for name in picked:
            calm = watch(port, seconds / 2)
            print(row("(calm)", calm, calm, process.memory_info().rss, 1), flush=True)
            with child("--flood", name, "--port", str(port)) as flood:
                assert flood.stdout is not None
                flood.stdout.readline()
                time.sleep(SETTLE_SECONDS)
                seen = watch(port, seconds)
                held = [c for c in process.net_connections() if c.status == "ESTABLISHED"]
                memory = process.memory_info().rss
            print(row(name, seen, calm, memory, len(held)), flush=True)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pick", default="", help="a pattern of the floods to measure")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each flood")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--flood", help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve(given.serve)
    elif given.flood:
        asyncio.run(attack(given.flood, given.port))
    else:
        measure([name for name in FLOODS if re.search(given.pick, name)], given.seconds)


if __name__ == "__main__":
    main()
