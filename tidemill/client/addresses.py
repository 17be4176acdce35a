"""What may be put into a request's URL: a service's address, and ids."""

import re
from typing import TYPE_CHECKING

from tidemill.errors import InvalidAddress, InvalidId

if TYPE_CHECKING:
    import httpx

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_KEY = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


def checked_id(value: str) -> str:
    """An id that is sure to name one resource and no other path.

    Raises:
        InvalidId: it holds what no id holds.
    """
    if not _ID.fullmatch(value):
        raise InvalidId(
            f"{value!r} cannot be an id: ids are up to 128 letters, digits, '_' and '-'."
        )
    return value


def checked_url(url: str) -> "httpx.URL":
    """The root of a service's URL, without ``/v1``.

    Raises:
        InvalidAddress: it is none that can be asked.
    """
    import httpx

    try:
        parsed = httpx.URL(url.rstrip("/").removesuffix("/v1"))
        parsed.raw_host.decode("ascii").encode("idna")  # as it is looked up
    except (httpx.InvalidURL, ValueError) as error:  # UnicodeError is one
        raise _no_address(url) from error
    wrong = parsed.scheme not in ("http", "https") or not parsed.host or "%" in parsed.host
    port = 80 if parsed.port is None else parsed.port
    if wrong or parsed.query or parsed.fragment or not 0 < port < 65536:
        raise _no_address(url)
    return parsed


def checked_key(key: str) -> str:
    """An API key that a header can carry.

    Raises:
        InvalidAddress: it cannot be one; the message does not show it.
    """
    if not _KEY.fullmatch(key):
        raise InvalidAddress(
            "The API key (--api-key or TIDEMILL_API_KEY) cannot be one: a key is of ASCII "
            "characters alone, with no blank or newline around it."
        )
    return key


def _no_address(url: str) -> InvalidAddress:
    return InvalidAddress(
        f"{url!r} is not where a service can be (--url or TIDEMILL_URL): expected an address such "
        "as http://127.0.0.1:8000."
    )
