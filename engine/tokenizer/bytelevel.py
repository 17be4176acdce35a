"""GPT-2's spelling of bytes as printable characters (Radford et al. 2019, encoder.py)."""

from collections.abc import Mapping
from types import MappingProxyType


def _alphabet() -> dict[int, str]:
    """Byte → character. Printable Latin-1 stands for itself, the rest is moved above U+0100."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = (byte for byte in range(256) if byte not in printable)
    return {byte: chr(byte) for byte in printable} | {
        byte: chr(0x100 + index) for index, byte in enumerate(others)
    }


BYTE_OF: Mapping[str, int] = MappingProxyType({char: byte for byte, char in _alphabet().items()})


def spelled_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for.

    A token with any character outside the alphabet (an added token in plain text) stands for its
    own UTF-8, as the decoder of the ``tokenizers`` library has it.
    """
    try:
        return bytes([BYTE_OF[char] for char in token])
    except KeyError:
        return token.encode("utf-8")
