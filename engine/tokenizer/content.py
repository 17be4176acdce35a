"""Text of messages that passes through a chat template without ever spelling a control token.

While a template runs, the characters of content that control tokens are spelled with are replaced,
one for one, by private ones that occur nowhere else. What the template writes keeps its own, so in
the result a control token can be read only where the template wrote it, and every character says
where it came from. The template notices nothing: what it asks of a `Content` is answered for the
text that it stands for.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import wraps
from itertools import chain
from operator import index
from typing import Any, SupportsIndex

from engine.errors import TokenizerError

# Unicode's private planes, and its private area for where they do not suffice.
_PRIVATE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE), range(0xE000, 0xF900))


@dataclass(frozen=True, slots=True)
class Disguise:
    """Which private character stands for which, as `str.translate` takes it, and back."""

    hide: Mapping[int, int]
    show: Mapping[int, int]

    @classmethod
    def of(cls, alphabet: Iterable[str], texts: Iterable[str]) -> "Disguise":
        """A disguise of the characters of ``alphabet``, by characters of none of the texts.

        Raises:
            TokenizerError: the texts use every private character that there is.
        """
        used = {ord(char) for text in texts for char in set(text)}
        unused = (code for code in chain(*_PRIVATE) if code not in used)
        hide = dict(zip(sorted(map(ord, alphabet)), unused, strict=False))
        if len(hide) < len(set(alphabet)):
            raise TokenizerError("The messages use every private character of Unicode.")
        return cls(hide, {private: char for char, private in hide.items()})


_worn: ContextVar[Disguise | None] = ContextVar("disguise", default=None)


@contextmanager
def worn(disguise: Disguise) -> Iterator[None]:
    """Within it, contents are of this disguise."""
    token = _worn.set(disguise)
    try:
        yield
    finally:
        _worn.reset(token)


class Content(str):
    """A text in the disguise that is worn; it may have undisguised parts, which a template wrote.

    Slices, splits and joins keep what is disguised; questions (``in``, ``==``, ``startswith``,
    ``find``, …) are answered for the text as it was.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return self  # `str(content)` is what templates print: it stays a content

    def __repr__(self) -> str:
        return hidden(repr(shown(self)))

    def __iter__(self) -> Iterator[str]:
        return map(Content, str.__iter__(self))

    def __getitem__(self, key: Any) -> str:
        return Content(str.__getitem__(self, key))

    def __radd__(self, other: str) -> str:
        return Content(str.__add__(other, self)) if isinstance(other, str) else NotImplemented

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> str:
        """See `str.replace`; what is looked for is looked for in the text as it was."""
        text, old, left = shown(self), shown(old), index(count)
        if not old:
            return Content(str.replace(self, old, new, left))
        made, at = [], 0
        while left and (found := text.find(old, at)) >= 0:
            made += [self[at:found], new]
            at, left = found + len(old), left - 1
        return joined([*made, self[at:]]) if made else self


def hidden(text: str) -> Content:
    """The text as a content, disguised all over."""
    disguise = _worn.get()
    return Content(text.translate(disguise.hide) if disguise else text)


def shown(value: Any) -> Any:
    """The text that a content stands for. Other values are as they were, tuples item by item."""
    if isinstance(value, tuple):
        return tuple(map(shown, value))
    if not isinstance(value, str):
        return value
    disguise = _worn.get()
    return str.translate(value, disguise.show if disguise else {})


def kept(value: Any) -> Any:
    """A string that has disguised parts, as a content: for what made it a plain one."""
    if _worn.get() is not None and type(value) is str and shown(value) != value:
        return Content(value)
    return value


def keeping(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with its result `kept`."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return kept(function(*args, **kwargs))

    return call


def showing(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called with what is `shown` of its arguments."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*map(shown, args), **kwargs)

    return call


def covering(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called with what is `shown`; its result is disguised if an argument was."""

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(arg, Content) for arg in args):
            return function(*args, **kwargs)
        return hidden(function(*map(shown, args), **kwargs))

    return call


def joined(texts: Iterable[Any]) -> str:
    """The texts as one, a content if it has disguised parts."""
    whole: str = kept("".join(map(str, texts)))
    return whole


def to_json(value: Any, ensure_ascii: bool, **options: Any) -> str:
    """JSON, in which contents stay disguised; ``options`` are those of `json.dumps`."""
    disguise = _worn.get()
    if disguise is None:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    def escaped(char: str) -> str:
        if ord(char) in disguise.show:
            plain = json.dumps(shown(char), ensure_ascii=ensure_ascii)[1:-1]
            return str(hidden(plain))
        return json.dumps(char)[1:-1] if ensure_ascii and not char.isascii() else char

    return Content("".join(map(escaped, json.dumps(value, ensure_ascii=False, **options))))


def _question(name: str) -> Callable[..., Any]:
    ask = getattr(str, name)

    def method(self: str, *args: Any, **kwargs: Any) -> Any:
        return ask(shown(self), *map(shown, args), **kwargs)

    return method


def _native(name: str) -> Callable[..., Any]:
    change = getattr(str, name)

    def method(self: str, *args: Any) -> Any:
        made = change(self, *args)
        return Content(made) if isinstance(made, str) else made

    return method


def _division(name: str) -> Callable[..., Any]:
    """For methods that cut a text into several; what is between them is as long as ``sep``."""
    divide = getattr(str, name)

    def method(self: str, *args: Any, **kwargs: Any) -> Any:
        text = shown(self)
        found = divide(text, *map(shown, args), **{key: shown(kwargs[key]) for key in kwargs})
        sep = kwargs.get("sep", args[0] if args else None)
        gap = len(sep) if isinstance(sep, str) and isinstance(found, list) else 0
        cuts, at = [], 0
        for each in found:
            start = text.index(each, at)
            cuts.append(self[start : start + len(each)])
            at = start + len(each) + gap
        return type(found)(cuts)

    return method


def _strip(name: str) -> Callable[..., Any]:
    strip = getattr(str, name)

    def method(self: str, chars: str | None = None, /) -> str:
        text, chars = shown(self), shown(chars)
        start = 0 if name == "rstrip" else len(text) - len(text.lstrip(chars))
        return self[start : start + len(strip(text, chars))]

    return method


def _case(name: str) -> Callable[..., Any]:
    change = getattr(str, name)

    def method(self: str) -> str:
        changed = change(shown(self))
        if len(changed) != len(self):
            return hidden(changed)
        pairs = zip(str.__iter__(self), shown(self), changed, strict=True)
        return joined(new if own == plain else hidden(new) for own, plain, new in pairs)

    return method


def _without(name: str) -> Callable[..., Any]:
    def method(self: str, affix: str, /) -> str:
        text, size = shown(self), len(affix)
        if name == "removeprefix":
            return self[size:] if text.startswith(shown(affix)) else self
        return self[: len(text) - size] if size and text.endswith(shown(affix)) else self

    return method


_METHODS: Mapping[Callable[[str], Callable[..., Any]], str] = {
    _question: (
        "__contains__ __eq__ __ne__ __lt__ __le__ __gt__ __ge__ __hash__ count encode endswith "
        "find index isalnum isalpha isascii isdecimal isdigit isidentifier islower isnumeric "
        "isprintable isspace istitle isupper rfind rindex startswith"
    ),
    _native: "__add__ __mul__ __rmul__ center expandtabs join ljust rjust zfill",
    _division: "split rsplit splitlines partition rpartition",
    _strip: "strip lstrip rstrip",
    _case: "capitalize casefold lower swapcase title upper",
    _without: "removeprefix removesuffix",
}
for _make, _names in _METHODS.items():
    for _name in _names.split():
        setattr(Content, _name, _make(_name))
