"""The API on a socket of its own, in a thread of its own."""

import asyncio
import errno
import gc
import socket
import threading
import time
from contextlib import suppress
from functools import cache
from types import TracebackType
from typing import Self

import uvicorn
from fastapi import FastAPI

from api.server.config import server_config
from storage.settings import ApiSettings
from tidemill.errors import CannotListen, PortInUse, StartFailed

START_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.02
TICK_SECONDS = 1.0


class Server(uvicorn.Server):
    """uvicorn, but woken to stop: by itself it looks for that ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()

    async def main_loop(self) -> None:
        """Renew the `Date` header every second, until `stop` is called."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), TICK_SECONDS)

    def stop(self) -> None:
        """Have it stop, and do not wait for it. For any thread."""
        self.should_exit = True
        loop = self._loop
        if loop is not None:
            with suppress(RuntimeError):  # it has stopped already
                loop.call_soon_threadsafe(self._told.set)


class ServerThread:
    """uvicorn on a socket that is already bound, in a thread of its own."""

    def __init__(self, app: FastAPI, listener: socket.socket, settings: ApiSettings) -> None:
        self._server = Server(server_config(app, settings))
        self._thread = threading.Thread(
            target=self._server.run, args=([listener],), name="api", daemon=True
        )

    def __enter__(self) -> Self:
        spare_collections()
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise StartFailed("The API did not start; the log says why.")
            time.sleep(POLL_SECONDS)
        return self

    def begin_stop(self) -> None:
        """Have the server stop, and do not wait for it."""
        self._server.stop()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.begin_stop()
        self._thread.join(STOP_SECONDS)


@cache
def spare_collections() -> None:
    """Keep what is loaded by now out of later garbage collections, once a process.

    A full one goes through every module's objects, and takes tenths of a second in which no request
    is served; many short connections bring it about often.
    """
    gc.collect()
    gc.freeze()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one.

    Raises:
        PortInUse: another program has the port.
        CannotListen: the address is not one of this machine's, or may not be used.
    """
    name = host.strip("[]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name has such parts"
        raise CannotListen(f"{host} is not an address: {reason}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(
                f"Port {port} of {host} is in use by another program. Choose another with --port, "
                "or --port 0 for any free one."
            ) from error
        raise CannotListen(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Where a client on this machine finds a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
