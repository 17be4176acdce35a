"""What templates can do with a text. Each counts what it reads and makes before it begins."""

import re
from collections.abc import Callable
from typing import Any, Final

from storage.datasets.templates.limits import ENTRY, Meter
from storage.datasets.templates.operations import concat
from storage.datasets.templates.plain_data import entries, kind_of, text_of
from storage.errors import RowFault

_MAX_STRIPPED: Final = 16  # characters that are looked for at the ends of a text
_WORDS: Final = re.compile(r"([-\s({\[<]+)")


def _converting(convert: Callable[[str], str]) -> Callable[[Meter, Any], str]:
    def run(meter: Meter, value: Any) -> str:
        text = text_of(meter, value)
        meter.spend_text(len(text))
        return convert(text)

    return run


def _title(meter: Meter, value: Any) -> str:
    """Each word with a capital; as in Jinja, an apostrophe is within a word."""
    text = text_of(meter, value)
    meter.spend(ENTRY * len(text))  # of the most words that it can have
    return "".join(word[:1].upper() + word[1:].lower() for word in _WORDS.split(text))


def _stripping(
    strip: Callable[[str, str | None], str],
) -> Callable[..., str]:
    def run(meter: Meter, value: Any, chars: Any = None) -> str:
        text = text_of(meter, value)
        if chars is not None and not (isinstance(chars, str) and len(chars) <= _MAX_STRIPPED):
            raise RowFault(f"what is stripped is a text of at most {_MAX_STRIPPED} characters")
        meter.spend(len(text))
        return strip(text, chars)

    return run


def _replace(meter: Meter, value: Any, old: Any, new: Any, count: Any = None) -> str:
    text, before, after = (text_of(meter, each) for each in (value, old, new))
    most = -1 if count is None else _whole(count)
    meter.spend(len(text) + len(before))
    found = text.count(before)
    times = found if most < 0 else min(found, most)
    meter.spend_text(len(text) + times * max(len(after) - len(before), 0))
    return text.replace(before, after, most)


def _truncate(
    meter: Meter,
    value: Any,
    length: int = 255,
    killwords: bool = False,
    end: str = "...",
    leeway: int = 5,
) -> str:
    text, tail = text_of(meter, value), text_of(meter, end)
    if _whole(length) < len(tail) or _whole(leeway) < 0:
        raise RowFault("a text cannot be truncated to less than its end")
    if len(text) <= length + leeway:
        return text
    meter.spend_text(length)
    kept = text[: length - len(tail)]
    return (kept if killwords else kept.rsplit(" ", 1)[0]) + tail


def _split(meter: Meter, value: Any, sep: Any = None, maxsplit: Any = -1) -> list[str]:
    text, most = text_of(meter, value), _whole(maxsplit)
    if sep is None:
        meter.spend(ENTRY * len(text) // 2)  # of the most words that it can have
        return text.split(None, most)
    if not isinstance(sep, str) or not sep:
        raise RowFault("a text is split at a text that is not empty")
    meter.spend(len(text) + len(sep))
    meter.spend(ENTRY * (1 + text.count(sep)))
    return text.split(sep, most)


def _splitlines(meter: Meter, value: Any) -> list[str]:
    text = text_of(meter, value)
    meter.spend(ENTRY * len(text) // 2)
    return text.splitlines()


def _startswith(meter: Meter, value: Any, prefix: Any) -> bool:
    text, wanted = text_of(meter, value), text_of(meter, prefix)
    meter.spend(len(wanted))
    return text.startswith(wanted)


def _endswith(meter: Meter, value: Any, suffix: Any) -> bool:
    text, wanted = text_of(meter, value), text_of(meter, suffix)
    meter.spend(len(wanted))
    return text.endswith(wanted)


def _joining(meter: Meter, value: Any, texts: Any) -> str:
    items = entries(meter, texts)
    meter.spend(ENTRY * len(items))
    return concat(meter, [text_of(meter, item) for item in items], text_of(meter, value))


def _whole(value: Any) -> int:
    if type(value) is not int or abs(value) >= 2**31:
        raise RowFault(f"{kind_of(value)} is not the number that is needed here")
    return value


TEXT_METHODS: Final[dict[str, Callable[..., Any]]] = {
    "capitalize": _converting(str.capitalize),
    "endswith": _endswith,
    "join": _joining,
    "lower": _converting(str.lower),
    "lstrip": _stripping(str.lstrip),
    "replace": _replace,
    "rstrip": _stripping(str.rstrip),
    "split": _split,
    "splitlines": _splitlines,
    "startswith": _startswith,
    "strip": _stripping(str.strip),
    "title": _title,
    "truncate": _truncate,
    "upper": _converting(str.upper),
}
