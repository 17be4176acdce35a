"""Ids of rows: a prefix, then the time in milliseconds and 80 random bits, in base 32.

Like ULIDs they sort by the time they were made, which keeps listings and primary keys in order.
"""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's: no i, l, o or u
_LENGTH = 26
_DASHED = frozenset({"file", "chatcmpl", "cmpl"})


def new_id(kind: str) -> str:
    """A new id such as ``batch_01k…`` or ``file-01k…``: 26 characters after the prefix."""
    number = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    digits = (_ALPHABET[number >> 5 * place & 31] for place in reversed(range(_LENGTH)))
    return f"{kind}{'-' if kind in _DASHED else '_'}{''.join(digits)}"
