"""Control tokens: which they are, and whether a text could have a part in spelling one."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

import tokenizers

# How control tokens are spelled that a vocabulary does not mark as such.
_LOOK = re.compile(r"<[|｜][^<>\s]*>|<[^<>\s]*[|｜]>")
_START = 3  # characters by which spellings are looked up
_WHITE = frozenset(" \t\r\n")
_SURROGATES = frozenset(map(chr, range(0xD800, 0xE000)))  # no text for a normalizer


class ControlTokens:
    """The tokens of a vocabulary that steer the model, which text of users must not become.

    They are the special tokens; and those that look like one, where they are added tokens or the
    templates write them. Tokens that are added to match text whole, such as runs of spaces or
    ``<think>``, are text.

    Args:
        backend: the tokenizer.
        templates: sources of the model's chat templates.

    Attributes:
        spellings: id → token.
    """

    def __init__(self, backend: tokenizers.Tokenizer, templates: Iterable[str]) -> None:
        added = backend.get_added_tokens_decoder()
        found = {
            token_id: token.content
            for token_id, token in added.items()
            if token.special or _LOOK.fullmatch(token.content)
        }
        for text in {look for source in templates for look in _LOOK.findall(source)}:
            token_id = backend.token_to_id(text)
            if token_id is not None and token_id not in added:
                found[token_id] = text
        # White space alone is no spelling: every text has it.
        self.spellings = {key: found[key] for key in sorted(found) if found[key].strip()}
        self._normalizer = backend.normalizer
        spelled = set(self.spellings.values())
        if self._normalizer is not None:
            spelled |= {
                self._normalizer.normalize_str(token.content).strip()
                for token_id, token in added.items()
                if token_id in self.spellings and token.normalized
            }
        self._spelled = frozenset(filter(None, spelled))
        letters = "".join(self._spelled)
        self._alphabet = frozenset(letters + letters.lower() + letters.upper()) - _WHITE
        self._index()

    def _index(self) -> None:
        by_start: defaultdict[str, list[str]] = defaultdict(list)
        for spelling in self._spelled:
            by_start[spelling[:_START]].append(spelling)
        self._by_start = {start: tuple(found) for start, found in by_start.items()}
        self._starts = re.compile("|".join(map(re.escape, self._by_start)))
        self._longest = max(map(len, self._spelled), default=0)
        self._heads = frozenset(each[:n] for each in self._spelled for n in range(1, len(each)))
        self._tails = frozenset(each[n:] for each in self._spelled for n in range(1, len(each)))
        self._all = "\n".join(self._spelled)
        self._firsts = "".join({each[0] for each in self._spelled})
        self._lasts = "".join({each[-1] for each in self._spelled})

    def __bool__(self) -> bool:
        return bool(self._spelled)

    def letters(self, texts: Iterable[str]) -> frozenset[str]:
        """The characters that spell control tokens, in either case, and those of the texts that
        do once they are normalized."""
        if self._normalizer is None:
            return self._alphabet
        normal = self._normalizer.normalize_str
        others = frozenset("".join(texts)) - self._alphabet - _WHITE - _SURROGATES
        alike = {char for char in others if not self._alphabet.isdisjoint(normal(char))}
        return self._alphabet | alike

    def possible_in(self, text: str, *, rewritten: bool) -> bool:
        """Whether a control token could be read in the text, or across one of its ends.

        Args:
            text: what a template gets.
            rewritten: the template may do more with it than cut it, such as replace parts of it;
                then the answer is yes where a character begins any spelling.
        """
        if not text:
            return False
        if self._possible_in(text, rewritten):
            return True
        if self._normalizer is None:
            return False
        try:
            return self._possible_in(self._normalizer.normalize_str(text), rewritten)
        except (TypeError, UnicodeEncodeError):
            return False  # it is no Unicode, and will not be encoded

    def _possible_in(self, text: str, rewritten: bool) -> bool:
        edge = self._longest - 1
        if len(text) <= edge and text in self._all:
            return True
        start, end = text[:edge], text[-edge:]
        if any(last in start for last in self._lasts) and any(
            start[:n] in self._tails for n in range(1, len(start) + 1)
        ):
            return True
        if rewritten:
            text = text.casefold()
        if not any(first in text for first in self._firsts):
            return False
        return (
            rewritten
            or any(end[n:] in self._heads for n in range(len(end)))
            or any(self._spelled_at(text, at) for at in self._beginnings(text))
        )

    def _beginnings(self, text: str) -> Iterator[int]:
        at = 0
        while match := self._starts.search(text, at):
            yield match.start()
            at = match.start() + 1

    def _spelled_at(self, text: str, at: int) -> bool:
        lengths = range(1, _START + 1)
        return any(text.startswith(self._by_start.get(text[at : at + n], ()), at) for n in lengths)
