"""Whole requests: lines of ``{"custom_id", "method", "url", "body"}``, which are sent as they
are."""

from collections.abc import Iterable, Mapping
from typing import Any

from storage.endpoints import CHAT_COMPLETIONS, SERVED, endpoint_named


def is_request(fields: Mapping[str, Any]) -> bool:
    """Whether an object is meant as a request, though keys may be missing."""
    return "custom_id" in fields and isinstance(fields.get("body"), dict)


def endpoint_of(requests: Iterable[Mapping[str, Any]]) -> str:
    """The endpoint that requests are for: the first that is served, else the first that one of them
    names."""
    urls = [url for request in requests if isinstance(url := request.get("url"), str)]
    named = [endpoint_named(url) for url in urls]
    return next((name for name in named if name in SERVED), (*named, CHAT_COMPLETIONS)[0])
