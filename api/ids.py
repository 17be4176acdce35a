"""Ids as clients send them."""

import re

from storage.errors import NotFound

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z", re.ASCII)


def checked_id(text: str) -> str:
    """``text`` if it has the form of an id; anything else must not reach the database.

    Raises:
        NotFound: it has not.
    """
    if _ID.match(text) is None:
        raise NotFound
    return text
