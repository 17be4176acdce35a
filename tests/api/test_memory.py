"""Uploads and downloads pass through the service in flat memory, measured in its own process."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

MIB = 1024 * 1024
FILE_BYTES = int(os.environ.get("TIDEMILL_TEST_UPLOAD_MIB", "64")) * MIB
MOST_GROWTH = 24 * MIB
BLOCK = b"0123456789abcdef" * 4096

SERVER = """
import socket, sys
import uvicorn
from pathlib import Path
from api.app import create_app
from api.server.config import server_config
from storage.settings import Settings
from storage.stores import Stores
from storage.wakeups import LocalWakeups

settings = Settings.load(home=Path(sys.argv[1]))
stores = Stores.open(settings.storage)
stores.database.migrate()
app = create_app(
    settings.api,
    stores=stores,
    wakeups=LocalWakeups(),
)
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
uvicorn.Server(server_config(app, settings.api)).run(sockets=[listener])
"""


def peak_rss(pid: int) -> int:
    """The most memory that the process ever held, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def form(size: int) -> Iterator[bytes]:
    yield (
        b"--b\r\nContent-Disposition: form-data; name=purpose\r\n\r\nbatch\r\n"
        b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    )
    for _ in range(size // len(BLOCK)):
        yield BLOCK
    yield b"\r\n--b--\r\n"


def round_trip(http: httpx.Client, size: int) -> int:
    """Upload and download a file; the bytes that came back."""
    made = http.post(
        "/v1/files",
        content=form(size),
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert made.status_code == 200
    with http.stream("GET", f"/v1/files/{made.json()['id']}/content") as answer:
        return sum(len(piece) for piece in answer.iter_raw())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert server.stdout is not None
        port = server.stdout.readline().split()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
            # Two small ones at once first: imports, threads and pools are no growth.
            with ThreadPoolExecutor(2) as pool:
                assert set(pool.map(lambda _: round_trip(http, MIB), range(4))) == {MIB}
            before = peak_rss(server.pid)
            with ThreadPoolExecutor(2) as pool:
                sizes = set(pool.map(lambda _: round_trip(http, FILE_BYTES), range(2)))
            assert sizes == {FILE_BYTES}
            assert peak_rss(server.pid) - before < MOST_GROWTH
    finally:
        server.terminate()
        server.communicate(timeout=20)
