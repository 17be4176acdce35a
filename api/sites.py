"""Whose pages may use the service: the Host, Origin and Sec-Fetch-Site headers of a request.

A browser sends what any page asks of it to any address that it reaches, this machine's own ones
among them. A key keeps such requests out, since a page does not know it. Where none is asked for,
these headers do, which a page cannot choose: Host holds the name that the page's own site was
looked up under, also where that name now leads to this machine (DNS rebinding).
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from api.auth import is_loopback
from api.errors import ApiError, error_response
from storage.settings import ApiSettings

# Headers of which a second one would leave open which of them is meant.
SINGLE = frozenset(
    {
        b"authorization",
        b"content-type",
        b"host",
        b"idempotency-key",
        b"if-range",
        b"origin",
        b"range",
        b"sec-fetch-site",
    }
)
_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._~-]+)(?::\d{0,5})?\Z", re.ASCII)


class CheckSite:
    """Answers 400 to a request without exactly one valid Host, or with a doubled header.

    Without API keys it answers 403 to a request for another host than this machine or one of
    ``allowed_hosts``, and to what a page of another site has sent.
    """

    def __init__(self, app: ASGIApp, settings: ApiSettings) -> None:
        self.app = app
        self._keyed = bool(settings.keys_by_secret)
        self._extra = settings.extra_hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            try:
                self._check(scope["headers"])
            except ApiError as error:
                await error_response(error)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    def _check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        headers = list(headers)
        check_single(headers)
        given = {name: value.decode("latin-1").strip().lower() for name, value in headers}
        host = given.get(b"host", "")
        if _AUTHORITY.match(host) is None:
            raise invalid_header("Host", "The request needs one valid Host header.")
        if self._keyed:
            return
        named = {name.decode("latin-1"): value for name, value in given.items()}
        if (why := why_foreign(named, self._extra)) is not None:
            raise refused_site(why)


def why_foreign(headers: Mapping[str, str], extra: frozenset[str]) -> str | None:
    """Why a request may come from a page of another site; ``None`` where it does not.

    Args:
        headers: ``host``, and ``origin`` and ``sec-fetch-site`` where they were sent, in lower
            case throughout.
        extra: the hosts beside this machine's own ones that may be called, likewise.
    """
    host = headers.get("host", "")
    match = _AUTHORITY.match(host)
    if match is None or not (is_loopback(match[1]) or _is_among(extra, host)):
        return f"it was sent to the host '{host[:100]}'"
    if (origin := headers.get("origin")) is not None:
        authority = origin.partition("://")[2]
        if authority != host and not _is_among(extra, authority):
            return f"a page of '{origin[:100]}' sent it"
    elif headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "a page of another site sent it"
    return None


def _is_among(hosts: frozenset[str], authority: str) -> bool:
    match = _AUTHORITY.match(authority)
    return match is not None and not hosts.isdisjoint({authority, match[1]})


def check_single(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise `ApiError` 400 where one of `SINGLE` is there twice."""
    counts = Counter(name for name, _ in headers if name in SINGLE)
    for name, count in counts.items():
        if count > 1:
            title = name.decode().title()
            raise invalid_header(title, f"The request has more than one {title} header.")


def invalid_header(name: str, message: str) -> ApiError:
    """A header that is missing, doubled or without meaning: 400."""
    return ApiError(400, message, param=name, code="invalid_header")


def refused_site(why: str) -> ApiError:
    """A request that may come from a page of another site, and no key to tell: 403."""
    return ApiError(
        403,
        f"Refused: {why}, and this service asks for no API key. Set TIDEMILL_ALLOWED_HOSTS to "
        "allow that host, or TIDEMILL_API_KEYS to ask for a key.",
        code="site_not_allowed",
    )
