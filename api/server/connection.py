"""One connection of the API, which gives up on what is too much, too slow, or stands still.

uvicorn's own protocol limits neither the head of a request nor the time that it, its body or its
response takes, and an idle connection only after its first request.
"""

import asyncio
import fcntl
import sys
import termios
from contextlib import suppress
from typing import Any

import structlog
from uvicorn.server import ServerState

from api.errors import ApiError
from api.server.limits import LimitedConfig
from api.server.parsing import ParsingConnection, Position
from api.server.refusals import (
    body_too_slow,
    head_too_slow,
    malformed_request,
    overloaded,
    raw_response,
)
from api.server.timers import Timer

# A client that is still sending sees its response before the socket closes, within limits.
LINGER_SECONDS = 5.0
LINGER_BYTES = 1024 * 1024
# Only where all connections are taken: who gives way to a new one.
STALLED_SECONDS = 0.25
SLOW_SECONDS, SLOW_BODY_RATE = 1.0, 16 * 1024

log = structlog.get_logger("tidemill.api")


class Connection(ParsingConnection):
    """The limits on time and number.

    What is waited for has one timer: a request to begin, its head, its body, or the end of a
    connection that was given up. A response that nobody reads has another one.

    Where all connections are taken, a new one takes the place of the one that was heard longest ago
    of those that wait for a request, or whose body or reader stands still or is slow: so whoever
    only holds connections keeps nobody else out.
    """

    def __init__(
        self,
        config: LimitedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.max_connections = config.max_connections
        self._all = config.heard
        self._heard_at = self._body_began_at = self.loop.time()
        self._write_paused_at: float | None = None
        self._waiting = Timer(self.loop)
        self._writing = Timer(self.loop)
        self._window_bytes = 0
        self._window_held = False
        self._dropped_bytes = 0

    @property
    def busy(self) -> bool:
        """Whether a response is due: its request's head was read, and it is not yet sent."""
        cycle = self.cycle
        return cycle is not None and not (cycle.response_complete or cycle.disconnected)

    def can_give_way(self, now: float) -> bool:
        """Whether the server waits for this client, which is slow or says nothing at all."""
        if not self.busy:
            return self.transport.get_write_buffer_size() == 0
        if self._write_paused_at is not None:
            return now - self._write_paused_at > self.settings.transfer_seconds
        held = self.flow.read_paused or self._window_held
        if self.position is not Position.BODY or self.cycle.response_started or held:
            return False
        seconds = now - self._body_began_at
        slow = seconds > SLOW_SECONDS and self._body_bytes < SLOW_BODY_RATE * seconds
        return slow or now - self._heard_at > STALLED_SECONDS

    def give_way(self) -> None:
        """End the connection at once, for another one."""
        if self.busy and not self.cycle.response_started and not self.pipeline:
            self.refuse(overloaded())
            self.transport.close()
        else:
            self.transport.abort()

    # What asyncio calls

    # asyncio promises less of a transport than a stream's, which uvicorn asks for.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        self._waiting.start(self.settings.idle_seconds, self._close)
        if len(self._all) >= self.max_connections and not self._make_room():
            self.refuse(overloaded())
            self.transport.close()
            return
        self._all[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        self._all.pop(self, None)
        self._waiting.stop()
        self._writing.stop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        self._heard_at = self.loop.time()
        if self in self._all:  # and not giving way to another one
            del self._all[self]
            self._all[self] = None
        if not self.refused:
            super().data_received(data)
        elif not self.busy:
            self._dropped_bytes += len(data)
            if self._dropped_bytes > LINGER_BYTES:
                self.transport.abort()

    # asyncio lets it say whether the connection stays; uvicorn's own never says so.
    def eof_received(self) -> bool:  # type: ignore[override]
        """The client sends no more, but may read on; true: the connection stays for that."""
        if self.position is not Position.BETWEEN and not self.refused:
            self.refuse(malformed_request())
        elif self.busy:
            self.cycle.keep_alive = False
            return True
        return False

    def pause_writing(self) -> None:
        """The client reads more slowly than it is sent to."""
        super().pause_writing()
        self._write_paused_at = self.loop.time()
        self._watch(self._writing)

    def resume_writing(self) -> None:
        """The client has read nearly everything."""
        self._writing.stop()
        self._write_paused_at = None
        super().resume_writing()

    # What the parser calls

    def on_message_begin(self) -> None:
        """See `ParsingConnection`."""
        super().on_message_begin()
        self._waiting.start(self.settings.head_seconds, self._head_is_late)

    def on_headers_complete(self) -> None:
        """See `ParsingConnection`."""
        super().on_headers_complete()
        self._body_began_at = self.loop.time()
        self._begin_window()

    def on_body(self, body: bytes) -> None:
        """See `ParsingConnection`."""
        super().on_body(body)
        self._window_bytes += len(body)
        self._window_held |= self.flow.read_paused

    def on_message_complete(self) -> None:
        """See `ParsingConnection`."""
        super().on_message_complete()
        if self.busy:
            self._waiting.stop()
        else:
            self._waiting.start(self.settings.idle_seconds, self._close)

    # What uvicorn calls

    def on_response_complete(self) -> None:
        """A response was sent; its request's body may still be on the way."""
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the timers here are stricter
        if self.refused:
            self._waiting.start(LINGER_SECONDS, self._close)
        elif self.transport.is_closing():
            self._watch(self._waiting)
        elif self.position is Position.BODY and not self.busy:
            self._waiting.start(LINGER_SECONDS, self._close)
        elif self.position is Position.BETWEEN and not self.busy:
            self._waiting.start(self.settings.idle_seconds, self._close)

    def refuse(self, error: ApiError) -> None:
        """Answer with ``error``, unless earlier responses are due first, and close."""
        self.refused = True
        log.info("request_refused", status=error.status, code=error.code)
        if self.busy and (self.position is not Position.BODY or self.pipeline):
            self._end_after_responses()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif self.position is Position.BODY:  # its response was sent before
            self._close()
            return
        self.flow.resume_reading()
        self.transport.write(raw_response(error))
        self.transport.write_eof()
        self._waiting.start(LINGER_SECONDS, self._close)

    def _end_after_responses(self) -> None:
        self._waiting.stop()
        self.cycle.keep_alive = False
        if self.position is Position.BODY:  # what is queued last will never be whole
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _make_room(self) -> bool:
        """End the connection that has been waited for longest; false where there is none."""
        now = self.loop.time()
        for each in self._all:
            if isinstance(each, Connection) and each.can_give_way(now):
                del self._all[each]
                each.give_way()
                return True
        return False

    def _begin_window(self) -> None:
        self._window_bytes = 0
        self._window_held = self.flow.read_paused
        self._waiting.start(self.settings.transfer_seconds, self._end_window)

    def _end_window(self) -> None:
        """Go on waiting for a body that goes on, or that was held up here."""
        seconds = self.settings.transfer_seconds
        held = self._window_held or self.flow.read_paused or self.cycle.waiting_for_100_continue
        if held or self._window_bytes >= max(1, self.settings.min_body_rate * seconds):
            self._begin_window()
        else:
            self.refuse(body_too_slow(seconds))

    def _head_is_late(self) -> None:
        if self.flow.read_paused:
            self._waiting.start(self.settings.head_seconds, self._head_is_late)
        else:
            self.refuse(head_too_slow(self.settings.head_seconds))

    def _watch(self, timer: Timer) -> None:
        """Give the connection up once nothing more of what was written is taken."""
        before = bytes_not_taken(self.transport)

        def look_again() -> None:
            if bytes_not_taken(self.transport) < before:
                self._watch(timer)
            else:
                self.transport.abort()

        timer.start(self.settings.transfer_seconds, look_again)

    def _close(self) -> None:
        self.transport.close()
        self._watch(self._waiting)


def bytes_not_taken(transport: asyncio.Transport) -> int:
    """How much of what was written the other machine has not yet acknowledged.

    The kernel's own queue counts too: it holds megabytes, and asks for more by the megabyte, so the
    transport's buffer alone would say for long that a slow reader takes nothing.
    """
    queued = 0
    with suppress(OSError):  # no such question on this system, or the socket is closed
        told = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        queued = int.from_bytes(told, sys.byteorder)
    return transport.get_write_buffer_size() + queued
