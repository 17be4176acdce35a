"""Where a text's tokens begin in it."""

from collections.abc import Iterable

# How far behind its place a token is looked for, where the text holds what no token has.
_REACH_BYTES = 32


def text_offsets(text: str, tokens: Iterable[bytes]) -> list[int]:
    """The place, in characters, at which each token begins.

    A token that is not in the text, as a special token or what follows a stop string, begins where
    the next one does. One that begins within a character has that character's place.

    Args:
        text: decoded from the tokens, with some left out or replaced.
        tokens: their bytes, in order.
    """
    data = text.encode()
    offsets: list[int] = []
    at = characters = 0  # the place in bytes, and how many characters begin before it
    for token in tokens:
        start, end = _find(data, token, at)
        characters += _begun(data[at:start])
        within = start < len(data) and _continues(data[start])
        offsets.append(characters - within)
        characters += _begun(data[start:end])
        at = end
    return offsets


def _find(data: bytes, token: bytes, at: int) -> tuple[int, int]:
    """Where a token lies at ``at`` or closely behind it; empty at ``at`` where it is not."""
    if not token:
        return at, at
    if data.startswith(token, at):
        return at, at + len(token)
    bare = token.removeprefix(b" ")  # SentencePiece drops a text's first space
    if bare and bare != token and data.startswith(bare, at):
        return at, at + len(bare)
    start = data.find(token, at, at + len(token) + _REACH_BYTES)
    return (at, at) if start < 0 else (start, start + len(token))


def _begun(data: bytes) -> int:
    return sum(not _continues(byte) for byte in data)


def _continues(byte: int) -> bool:
    """Whether a byte of UTF-8 continues a character."""
    return byte & 0xC0 == 0x80
