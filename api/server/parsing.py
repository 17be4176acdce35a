"""A connection that counts what its parser reads, and refuses what is too much.

llhttp, the parser, keeps an unfinished header however long it grows, and calls back for every
chunk of a chunked body however small; uvicorn keeps whatever the parser hands it.
"""

import asyncio
from abc import abstractmethod
from enum import Enum, auto
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from api.errors import ApiError
from api.server.limits import LimitedConfig
from api.server.refusals import (
    head_too_large,
    malformed_request,
    too_many_headers,
    url_too_long,
)

MAX_PIPELINED = 8
# A body in more pieces than this, whose mean is below that, costs far more time than it is long.
MANY_PIECES = 8_192
LEAST_MEAN_PIECE = 16


class Position(Enum):
    """How far the parser is."""

    BETWEEN = auto()
    HEAD = auto()
    BODY = auto()


class _Refused(Exception):
    """Ends the parser's work within one of its callbacks."""


class ParsingConnection(HttpToolsProtocol):
    """The limits on amounts. `refuse` is called once, and nothing is parsed after it."""

    def __init__(
        self,
        config: LimitedConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.settings = config.settings
        self.position = Position.BETWEEN
        self.refused = False
        self._reason: ApiError | None = None
        self._heads_begun = 0  # by the data that is being parsed
        self._head_bytes = 0
        self._body_bytes = 0
        self._body_pieces = 0

    @abstractmethod
    def refuse(self, error: ApiError) -> None:
        """Answer with ``error``, where that is still possible, and end the connection."""

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        fresh = self.position is Position.BETWEEN
        body_bytes = self._body_bytes
        self._heads_begun = 0
        super().data_received(data)
        if self.refused:
            return
        if self.position is Position.HEAD:
            # Where requests are pipelined, what of ``data`` is this head's is not known.
            if self._heads_begun == 0 or (fresh and self._heads_begun == 1):
                self._count_head(len(data))
        elif self.position is Position.BODY:
            if self._body_bytes > body_bytes or self._heads_begun:
                self._head_bytes = 0
            else:  # a chunk's extension, or the trailer
                self._count_head(len(data))

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > self.settings.max_head_bytes:
            self.refuse(head_too_large(self.settings.max_head_bytes))

    def _stop(self, reason: ApiError) -> _Refused:
        self._reason = reason
        return _Refused()

    def send_400_response(self, msg: str) -> None:
        """Called where the parser failed, on its own or in a callback."""
        self.refuse(self._reason or malformed_request())

    def on_message_begin(self) -> None:
        """The first byte of a head."""
        super().on_message_begin()
        if len(self.pipeline) >= MAX_PIPELINED:
            raise self._stop(malformed_request())
        self.position = Position.HEAD
        self._heads_begun += 1
        self._head_bytes = self._body_bytes = self._body_pieces = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the URL."""
        super().on_url(url)
        limit = self.settings.max_url_bytes
        if len(self.url) > limit:
            raise self._stop(url_too_long(limit))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A whole field; those of a trailer, which nobody reads, are dropped."""
        if self.position is not Position.HEAD:
            return
        super().on_header(name, value)
        limit = self.settings.max_header_fields
        if len(self.headers) > limit:
            raise self._stop(too_many_headers(limit))

    def on_headers_complete(self) -> None:
        """The head is whole: its request may begin."""
        limit = self.settings.max_head_bytes
        if len(self.url) + sum(len(k) + len(v) + 4 for k, v in self.headers) > limit:
            raise self._stop(head_too_large(limit))
        super().on_headers_complete()
        self.position = Position.BODY
        if self.parser.should_upgrade():
            # No other protocol is spoken; what follows such a head is not parsed either.
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        super().on_body(body)
        self._body_bytes += len(body)
        self._body_pieces += 1
        if (
            self._body_pieces > MANY_PIECES
            and self._body_bytes < LEAST_MEAN_PIECE * self._body_pieces
        ):
            raise self._stop(malformed_request())

    def on_message_complete(self) -> None:
        """The end of the request."""
        super().on_message_complete()
        self.position = Position.BETWEEN
