"""A small HTTP server for scrapes: few connections, short ones, none for pages of other sites."""

import ipaddress
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from api.sites import why_foreign

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

MOST_CONNECTIONS = 8
CONNECTION_SECONDS = 10.0
_SITE_HEADERS = ("host", "origin", "sec-fetch-site")


@contextmanager
def serve_scrapes(
    app: "WSGIApplication", address: str, port: int, allowed_hosts: frozenset[str]
) -> Iterator[int]:
    """Serve ``app`` in a thread while the context lasts; gives the port, which for 0 is a free one.

    On a loopback address it answers 403 to what may come from a page of another site (`api.sites`),
    for it asks for no key. On any other address a scraper may call it by any name.

    Args:
        allowed_hosts: names in lower case that it may be called by, beside this machine's own.

    Raises:
        OSError, UnicodeError: the address cannot be had.
    """
    family, _, _, _, place = socket.getaddrinfo(
        address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = str(place[0])
    if ipaddress.ip_address(bound.partition("%")[0]).is_loopback:
        app = _refuse_foreign(app, allowed_hosts | {address.lower()})
    with _Server((bound, port), family) as server:
        server.set_app(app)
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join(5.0)


def _refuse_foreign(app: "WSGIApplication", hosts: frozenset[str]) -> "WSGIApplication":
    def checked(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        keys = {name: f"HTTP_{name.replace('-', '_').upper()}" for name in _SITE_HEADERS}
        given = {name: environ[key].lower() for name, key in keys.items() if key in environ}
        why = why_foreign(given, hosts)
        if why is None:
            return app(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain; charset=utf-8")])
        said = f"Refused: {why}. Set TIDEMILL_ALLOWED_HOSTS to allow that host.\n"
        return [said.encode(errors="replace")]

    return checked


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, which it cuts off after its time."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, place: tuple[str, int], family: int) -> None:
        self.address_family = family
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        super().__init__(place, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        # A time-out of the socket would begin again with each byte.
        deadline = threading.Timer(CONNECTION_SECONDS, _cut, [request])
        deadline.daemon = True
        try:
            deadline.start()
            super().process_request_thread(request, client_address)
        finally:
            deadline.cancel()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a connection that broke, which is its client's affair


def _cut(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
