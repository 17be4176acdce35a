"""Finding stop strings in text that comes in pieces."""


class StopMatcher:
    """Passes text on until a stop string is complete.

    It holds back only the longest end of the text that is the beginning of a stop string. Each
    string is followed by its Knuth–Morris–Pratt automaton (SIAM J. Comput. 6, 1977), so the time
    is linear in the text, whatever the pieces and the strings.

    Args:
        stops: non-empty strings.
        include: pass on the stop string itself.

    Attributes:
        matched: the string that was found; nothing is passed on after it.
    """

    def __init__(self, stops: tuple[str, ...], include: bool) -> None:
        # The longest first: it wins where one character completes several.
        self._automata = [_Automaton(stop) for stop in sorted(set(stops), key=len, reverse=True)]
        self._include = include
        self._held = ""
        self.matched: str | None = None

    def feed(self, text: str) -> str:
        """Take more text; returns the part of all text so far that is newly known to stay."""
        if not self._automata or self.matched is not None or not text:
            return "" if self.matched is not None else text
        pending = self._held + text
        for end, char in enumerate(text, start=len(self._held) + 1):
            for automaton in self._automata:
                if automaton.step(char):
                    self.matched, self._held = automaton.pattern, ""
                    return pending[: end if self._include else end - len(automaton.pattern)]
        kept = len(pending) - max(automaton.length for automaton in self._automata)
        self._held = pending[kept:]
        return pending[:kept]

    def finish(self) -> str:
        """No more text comes: returns what was held back."""
        held, self._held = self._held, ""
        return held


class _Automaton:
    """How much of the end of the text is a beginning of the pattern (``length`` characters)."""

    __slots__ = ("_fallback", "length", "pattern")

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.length = 0
        # fallback[n]: the longest proper prefix of pattern[:n] that is also its suffix.
        self._fallback = [0] * (len(pattern) + 1)
        for index in range(1, len(pattern)):
            self.step(pattern[index])
            self._fallback[index + 1] = self.length
        self.length = 0

    def step(self, char: str) -> bool:
        """Take a character; true when the pattern is complete."""
        length = self.length
        while length and self.pattern[length] != char:
            length = self._fallback[length]
        if self.pattern[length] == char:
            length += 1
        self.length = length
        return length == len(self.pattern)
