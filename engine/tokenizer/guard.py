"""Encoding a rendered chat so that only what its template wrote becomes control tokens."""

import json
import re
import secrets
from collections.abc import Iterable, Mapping, Sequence
from string import ascii_lowercase
from threading import Lock
from typing import Any

import tokenizers

_SECRET_LETTERS = 24
_PLACE = "\ue000"
_RUN = re.compile("[\ue000-\uf8ff\U000f0000-\U0010fffd]+")
_Token = tuple[int, tuple[int, int]]


class RenderedChat(str):
    """A prompt that a chat template wrote around text which could be read as control tokens.

    As a string it is the prompt. `Tokenizer.encode` makes control tokens only of what the template
    wrote; a copy of its text has no such protection.

    Attributes:
        disguised: the prompt with other characters wherever a character is not the template's and
            could be a part of a control token.
    """

    __slots__ = ("disguised",)
    disguised: str

    def __new__(cls, text: str, disguised: str) -> "RenderedChat":
        made = super().__new__(cls, text)
        made.disguised = disguised
        return made


class Guard:
    """Encodes `RenderedChat`, by a twin of the tokenizer that spells control tokens in its own way.

    The twin has the same ids, and splits, normalizes and merges as the tokenizer does. But its
    control tokens, also those of its model's vocabulary, are spelled by secret letters, so no text
    becomes one of them. In a prompt the template's control tokens get these spellings.

    Args:
        backend: the tokenizer.
        spellings: id → control token.
    """

    def __init__(self, backend: tokenizers.Tokenizer, spellings: Mapping[int, str]) -> None:
        self._backend = backend
        self._spellings = spellings
        secret = "".join(secrets.choice(ascii_lowercase) for _ in range(_SECRET_LETTERS))
        self._secrets = {token_id: secret + _letters(token_id) for token_id in spellings}
        self._lock = Lock()
        self._twin: tokenizers.Tokenizer | None = None

    def encode(self, chats: Sequence[RenderedChat], add_special_tokens: bool) -> list[list[int]]:
        """The token ids of each.

        Raises:
            TypeError: one is not valid Unicode.
        """
        with self._lock:  # made once, when it is needed: a copy of a large vocabulary takes a while
            self._twin = self._twin or self._make_twin()
        # Of what is disguised only its place matters here.
        short = [_RUN.sub(_PLACE, chat.disguised) for chat in chats]
        encodings = self._backend.encode_batch(short, add_special_tokens=False)
        respelled = [
            self._respelled(chat, text, zip(encoding.ids, encoding.offsets, strict=True))
            for chat, text, encoding in zip(chats, short, encodings, strict=True)
        ]
        found = self._twin.encode_batch_fast(respelled, add_special_tokens=add_special_tokens)
        return [encoding.ids for encoding in found]

    def _respelled(self, chat: RenderedChat, short: str, tokens: Iterable[_Token]) -> str:
        """The prompt with the twin's spellings of the control tokens that the template wrote.

        Args:
            chat: the prompt.
            short: the same with `_PLACE` for each disguised part.
            tokens: those of ``short``.
        """
        made: list[str] = []
        at = 0
        for token_id, (start, end) in tokens:
            if token_id not in self._spellings or start < at:
                continue
            written = short[start:end]
            # An unknown character also becomes a control token, and is none.
            if _PLACE in written or not self._is_spelling(token_id, written):
                continue
            word = written.strip()
            start += len(written) - len(written.lstrip())
            made += [short[at:start], self._secrets[token_id]]
            at = start + len(word)
        made.append(short[at:])
        hidden = (chat[run.start() : run.end()] for run in _RUN.finditer(chat.disguised))
        return re.sub(_PLACE, lambda _: next(hidden), "".join(made))

    def _is_spelling(self, token_id: int, written: str) -> bool:
        spelling = self._spellings[token_id]
        if written.strip() == spelling.strip():
            return True
        normalizer = self._backend.normalizer
        if normalizer is None:
            return False
        normal = normalizer.normalize_str
        return bool(normal(written).strip() == normal(spelling).strip())

    def _make_twin(self) -> tokenizers.Tokenizer:
        new = {self._spellings[token_id]: secret for token_id, secret in self._secrets.items()}
        state = json.loads(self._backend.to_str())
        added = {token["id"]: token for token in state["added_tokens"]}
        for token_id, secret in self._secrets.items():
            flags = {"lstrip": False, "rstrip": False, "normalized": False, "special": True}
            token = {"id": token_id, **flags, **added.get(token_id, {})}
            added[token_id] = token | {"content": secret, "single_word": False}
        state["added_tokens"] = [added[token_id] for token_id in sorted(added)]
        _respell_model(state["model"], new)
        return tokenizers.Tokenizer.from_str(json.dumps(state))


def _respell_model(model: dict[str, Any], new: Mapping[str, str]) -> None:
    """Give tokens of the model's vocabulary new spellings, and leave out merges that make them."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {new.get(token, token): index for token, index in vocabulary.items()}
    else:  # of a unigram model: pairs of token and score
        model["vocab"] = [[new.get(token, token), *rest] for token, *rest in vocabulary]
    if model.get("unk_token") is not None:
        model["unk_token"] = new.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        prefix = model.get("continuing_subword_prefix") or ""
        pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [
            [left, right]
            for left, right in pairs
            if new.keys().isdisjoint((left, right, left + right.removeprefix(prefix)))
        ]


def _letters(number: int) -> str:
    """A number below 26⁶ as six letters."""
    letters = ""
    for _ in range(6):
        number, digit = divmod(number, 26)
        letters += ascii_lowercase[digit]
    return letters
