"""Text that appears token by token: complete characters only, cut at stop strings."""

import codecs
from collections.abc import Iterable, Sequence
from typing import Protocol

from engine.tokenizer.stops import StopMatcher
from engine.tokenizer.tokenizer import Tokenizer


class IncrementalDetokenizer:
    """Turns one answer's tokens into text as they come.

    The text after `finish` equals ``tokenizer.decode(ids, after=after)``, cut at the first stop
    string. A push takes amortized constant time, however long the answer is.

    Args:
        tokenizer: of the model.
        skip_special_tokens: leave special tokens out of the text.
        stop: strings that end the text. Where several could, the one completed first does; among
            those completed by the same character, the longest.
        include_stop: keep the stop string itself in the text.
        after: tokens that the text goes on from: see `Tokenizer.decode`.

    Attributes:
        stopped: the stop string that ended the text, or ``None``. Later tokens are ignored.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        skip_special_tokens: bool = True,
        stop: Iterable[str] = (),
        include_stop: bool = False,
        after: Sequence[int] = (),
    ) -> None:
        self._skipped: frozenset[int] = (
            tokenizer.special_ids if skip_special_tokens else frozenset()
        )
        self._decoder: _Decoder = (
            _ByteLevelDecoder(tokenizer)
            if tokenizer.byte_level
            else _WindowDecoder(tokenizer, after)
        )
        self._matcher = StopMatcher(tuple(stop), include_stop)
        self._settled: list[str] = []

    @property
    def stopped(self) -> str | None:
        return self._matcher.matched

    @property
    def text(self) -> str:
        """All text settled so far: what the calls of `push` and `finish` returned together."""
        if len(self._settled) > 1:
            self._settled = ["".join(self._settled)]
        return self._settled[0] if self._settled else ""

    def push(self, token_id: int, *, search: bool = True) -> str:
        """Take the next token.

        Args:
            token_id: of the answer.
            search: look for stop strings from this token on; false only before it ever was true.

        Returns:
            The text that is settled by it. Held back are bytes that do not make a character yet
            and text that may yet become a stop string.
        """
        if self.stopped is not None or token_id in self._skipped:
            return ""
        text = self._decoder.push(token_id)
        return self._keep(self._matcher.feed(text) if search else text)

    def finish(self) -> str:
        """No more tokens come: returns what was held back. To be called once."""
        if self.stopped is not None:
            return ""
        return self._keep(self._matcher.feed(self._decoder.finish()) + self._matcher.finish())

    def _keep(self, text: str) -> str:
        if text:
            self._settled.append(text)
        return text


class _Decoder(Protocol):
    """Tokens → complete characters."""

    def push(self, token_id: int) -> str: ...

    def finish(self) -> str: ...


class _ByteLevelDecoder:
    """For vocabularies whose tokens are bytes: an incremental UTF-8 decoder.

    Python's replaces each maximal invalid part by one U+FFFD, as the tokenizers library does.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._token_bytes = tokenizer.token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        return self._utf8.decode(self._token_bytes(token_id))

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


class _WindowDecoder:
    """For all other vocabularies: decode the last settled tokens with and without the new ones.

    A token's text may depend on whether it comes first (a leading space is dropped), so the
    window keeps settled tokens in front as context. A run of byte tokens is decoded as a whole,
    all of it U+FFFD if any part of it is no UTF-8; so it is settled by the token after it.
    """

    def __init__(self, tokenizer: Tokenizer, after: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        self._window = list(after)
        self._settled = len(after)  # tokens at the window's start whose text is out

    def push(self, token_id: int) -> str:
        if not self._tokenizer.token_bytes(token_id):
            return ""  # unknown or empty: as context, what follows would look like the beginning
        self._window.append(token_id)
        return "" if self._tokenizer.is_byte_token(token_id) else self._settle()

    def finish(self) -> str:
        return self._settle() if self._settled < len(self._window) else ""

    def _settle(self) -> str:
        before = self._decode(self._window[: self._settled])
        text = self._decode(self._window)[len(before) :]
        del self._window[: self._settled]
        self._settled = len(self._window)
        return text

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=False)
