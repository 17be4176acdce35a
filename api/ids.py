"""Ids as clients send them."""

import re

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z", re.ASCII)


def is_id(text: str) -> bool:
    """Whether ``text`` could be one of our ids; anything else never reaches the database."""
    return _ID.match(text) is not None
