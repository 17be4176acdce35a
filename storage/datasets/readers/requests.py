"""Whole requests: lines of ``{"custom_id", "method", "url", "body"}``, which are sent as they
are."""

from collections.abc import Iterable, Mapping
from typing import Any

from storage.endpoints import CHAT_COMPLETIONS

REQUEST_KEYS = frozenset({"custom_id", "method", "url", "body"})
KEYS_THAT_TELL = 2


def is_request(fields: Mapping[str, Any]) -> bool:
    """Whether an object is meant as a request, though keys may be missing."""
    return len(REQUEST_KEYS & fields.keys()) >= KEYS_THAT_TELL


def endpoint_of(requests: Iterable[Mapping[str, Any]]) -> str:
    """The endpoint that requests are for: the first that one of them names."""
    urls = (request.get("url") for request in requests)
    return next((url for url in urls if isinstance(url, str)), CHAT_COMPLETIONS)
