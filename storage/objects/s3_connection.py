"""Answers of S3 whose head was cut off are no answers.

Python's ``http.client`` takes the end of a connection for the end of an answer's head. What was cut
inside a header then counts as that header: half an ETag as the whole one, ``Content-Length: 12`` of
1234. For a HEAD, or a PUT, nothing after it would tell.
"""

from http.client import HTTPResponse, IncompleteRead
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection

_END_OF_HEAD = (b"\r\n", b"\n")


class _LastLine:
    """A stream that remembers the last line that was read of it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.line = b""

    def readline(self, limit: int = -1) -> bytes:
        self.line = self._stream.readline(limit)
        return self.line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class WholeResponse(HTTPResponse):
    """An answer whose head ends in an empty line.

    Raises:
        IncompleteRead: from `begin`, where it does not; the request is then sent again as after
            any connection that broke.
    """

    def begin(self) -> None:
        stream: Any = self.fp
        watched: Any = _LastLine(stream)
        self.fp = watched
        super().begin()
        if self.fp is watched:
            self.fp = stream
        if watched.line not in _END_OF_HEAD:
            self.close()
            raise IncompleteRead(watched.line)


def require_whole_heads() -> None:
    """Have every S3 connection of this process refuse answers whose head was cut off."""
    for connection in (AWSHTTPConnection, AWSHTTPSConnection):
        connection.response_class = WholeResponse  # type: ignore[assignment]
