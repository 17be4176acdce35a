"""What a connection refuses by itself, before or without the application: the same envelope."""

from email.utils import formatdate
from http import HTTPStatus
from uuid import uuid4

import orjson

from api.errors import SERVER_ERROR, ApiError


def malformed_request() -> ApiError:
    """What came is not HTTP/1.1: 400."""
    return ApiError(400, "The request is not well-formed HTTP/1.1.", code="malformed_request")


def url_too_long(limit: int) -> ApiError:
    """The URL is longer than the configured cap: 414."""
    return ApiError(414, f"The URL is longer than {limit} bytes.", code="url_too_long")


def head_too_large(limit: int) -> ApiError:
    """The head, or the trailer of a chunked body, is longer than the configured cap: 431."""
    message = f"The headers of the request are larger than {limit} bytes."
    return ApiError(431, message, code="headers_too_large")


def too_many_headers(limit: int) -> ApiError:
    """The head has more fields than the configured cap: 431."""
    return ApiError(431, f"The request has more than {limit} headers.", code="headers_too_large")


def head_too_slow(seconds: float) -> ApiError:
    """The head did not arrive in time: 408."""
    message = f"The headers of the request did not arrive within {seconds:g} seconds."
    return ApiError(408, message, code="request_timeout")


def body_too_slow(seconds: float) -> ApiError:
    """The body came too slowly: 408."""
    message = f"Too little of the request's body arrived within {seconds:g} seconds."
    return ApiError(408, message, code="request_timeout")


def overloaded() -> ApiError:
    """Every connection is taken: 503."""
    return ApiError(
        503,
        "The server has too many connections; try again in a moment.",
        type=SERVER_ERROR,
        code="too_many_connections",
        headers={"Retry-After": "1"},
    )


def raw_response(error: ApiError) -> bytes:
    """A whole HTTP/1.1 response, after which the connection is closed."""
    body = orjson.dumps(error.body)
    headers = {
        "date": formatdate(usegmt=True),
        "content-type": "application/json",
        "content-length": str(len(body)),
        "x-request-id": f"req_{uuid4().hex}",
        "connection": "close",
        **{name.lower(): value for name, value in error.headers.items()},
    }
    phrase = HTTPStatus(error.status).phrase
    lines = [f"HTTP/1.1 {error.status} {phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
