"""Around every request: an id, a line in the access log, HEAD, and a limit on JSON bodies."""

import re
import time
import uuid

import structlog
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.errors import error_response, from_status

REQUEST_ID_HEADER = "x-request-id"
_HEAD = "tidemill.head"
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")

log = structlog.get_logger("tidemill.api")


def request_id_of(scope: Scope) -> str:
    """The id of the request: the client's own where it sent a plain one, else a new one.

    It is kept in the scope, so that the error handler outside of this middleware finds it too.
    """
    state: dict[str, object] = scope.setdefault("state", {})
    known = state.get("request_id")
    if isinstance(known, str):
        return known
    sent = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
    offered = sent.decode("latin-1")
    state["request_id"] = offered if _SAFE_ID.match(offered) else f"req_{uuid.uuid4().hex}"
    return str(state["request_id"])


class AccessLog:
    """Sends `x-request-id` with every response and logs one line a request.

    The query string is left out of the line, so that nothing private reaches the logs.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        started = time.monotonic()
        status = 500  # the outermost handler sends this when nothing was sent here

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = request_id
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        finally:
            log.info(
                "request",
                method=scope["method"],
                path=scope["path"],
                status=status,
                seconds=round(time.monotonic() - started, 4),
                request_id=request_id,
            )


class HeadAsGet:
    """Serves HEAD as GET whose response has no body. `wants_head` tells a route of it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return

        async def without_body(message: Message) -> None:
            if message["type"] == "http.response.body":
                message = {**message, "body": b""}
            await send(message)

        inner = {**scope, "method": "GET", _HEAD: True}
        try:
            await self.app(inner, receive, without_body)
        finally:
            if "route" in inner:  # for the metrics
                scope["route"] = inner["route"]


def wants_head(scope: Scope) -> bool:
    """Whether a request that looks like GET is a HEAD."""
    return _HEAD in scope


class BodyLimit:
    """Refuses a body above ``limit`` bytes: by its announced length, or while it arrives.

    ``streamed`` holds the (method, path) pairs that are exempt: their routes read the body in
    pieces and have a limit of their own.
    """

    def __init__(self, app: ASGIApp, limit: int, streamed: frozenset[tuple[str, str]]) -> None:
        self.app = app
        self.limit = limit
        self.streamed = streamed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or (scope["method"], scope["path"]) in self.streamed:
            await self.app(scope, receive, send)
            return
        announced = next((v for name, v in scope["headers"] if name == b"content-length"), b"")
        if announced.isdigit() and int(announced) > self.limit:
            await error_response(from_status(413, scope["method"], scope["path"]))(
                scope, receive, send
            )
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.limit:
                raise HTTPException(413)
            return message

        await self.app(scope, counted, send)
