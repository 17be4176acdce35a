"""How much a template may read, make and do, and the meter that a row's rendering runs on.

All work is counted in one unit, the characters that are read or made, and is counted before it is
done. So a rendering ends by itself, in the thread that it runs in, before it has used much time or
memory.
"""

from dataclasses import dataclass
from typing import Final

from storage.errors import RowFault

OPERATION: Final = 128  # what one operation in a loop costs, in characters
TEXT: Final = 8  # what each text with expressions costs beside its symbols
ENTRY: Final = 32  # what one entry of a list or an object costs


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """Bounds of a template.

    Attributes:
        max_symbols: most names, constants, operators and brackets in a template, spaces between
            them included; each text with expressions counts 8 more.
        max_text: most characters of a text that is made.
        max_work: most work for one row, in characters: those of all texts that are read and made,
            128 for every operation in a loop, 32 for every entry of a list or an object.
    """

    max_symbols: int = 16_384
    max_text: int = 8 * 1024**2
    max_work: int = 32 * 1024**2


class Meter:
    """What is left of a row's work."""

    def __init__(self, limits: TemplateLimits) -> None:
        self._left = limits.max_work
        self._max_text = limits.max_text

    def spend(self, characters: int) -> None:
        """Count work that is about to be done.

        Raises:
            RowFault: it is more than is left.
        """
        self._left -= characters
        if self._left < 0:
            raise RowFault("it takes too much work; make loops shorter, or texts smaller")

    def spend_text(self, characters: int) -> None:
        """Count a text that is about to be made.

        Raises:
            RowFault: it is too long, or more than is left.
        """
        if characters > self._max_text:
            raise RowFault(f"a text of more than {self._max_text:,} characters comes out")
        self.spend(characters)
