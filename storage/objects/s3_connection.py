"""Refuse responses of S3 whose head was cut off.

Python's ``http.client`` takes the end of a connection for the end of a response's head. A header
that was cut in the middle is then read as it stands: half an ETag, or ``Content-Length: 12`` in
place of 1234. After a HEAD or a PUT no body follows that would show it.
"""

from http.client import HTTPResponse, IncompleteRead
from typing import Any

from botocore.awsrequest import AWSHTTPConnection, AWSHTTPSConnection

_END_OF_HEAD = (b"\r\n", b"\n")


class _LastLine:
    """A stream that remembers the last line read from it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.line = b""

    def readline(self, limit: int = -1) -> bytes:
        self.line = self._stream.readline(limit)
        return self.line

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class WholeResponse(HTTPResponse):
    """A response whose head must end in an empty line.

    Raises:
        IncompleteRead: from `begin`, where it does not; the request is then sent again, as after
            any broken connection.
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
    """Have every S3 connection of this process refuse responses whose head was cut off."""
    for connection in (AWSHTTPConnection, AWSHTTPSConnection):
        connection.response_class = WholeResponse  # type: ignore[assignment]
