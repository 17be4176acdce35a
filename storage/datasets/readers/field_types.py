"""The types of a source's fields, for formats that fix them beforehand."""

from collections import defaultdict
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import msgspec

from storage.datasets.readers.delimited import read_header
from storage.datasets.readers.rows import read_fields
from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.values.json_text import exact_float
from storage.datasets.values.sources import Source

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)


class FieldType(Enum):
    """The types that a field may have. ``TEXT`` holds every value: what is no text, as JSON."""

    BOOL = auto()
    INT64 = auto()
    UINT64 = auto()
    FLOAT64 = auto()
    TEXT = auto()


def field_types(source: Source) -> dict[str, FieldType]:
    """The fields of all rows, and for each a type that holds all of its values unchanged.

    Numbers are floats only where floats hold all of them, digit by digit. All columns of a CSV file
    are text.
    """
    if source.kind.delimited:
        with open_unpacked(source.file, source.name, source.limits) as stream:
            return dict.fromkeys(read_header(stream, source), FieldType.TEXT)
    seen: defaultdict[str, _Seen] = defaultdict(_Seen)
    for _, fields, _ in read_fields(source):
        for name, value in fields.items():
            seen[name].add(value)
    return {name: values.type for name, values in seen.items()}


@dataclass(slots=True)
class _Seen:
    """The values of one field so far.

    Attributes:
        kinds: bool, int, float, and str for all else; what comes after a str counts no more.
        least, most: of the integers.
        exact: whether floats hold all of the integers.
    """

    kinds: set[type] = field(default_factory=set)
    least: int = 0
    most: int = 0
    exact: bool = True

    def add(self, value: Any) -> None:
        """Take the next value into account."""
        if value is None or str in self.kinds:
            return
        kind = type(value)
        if kind is msgspec.Raw:
            kind = str if exact_float(value) is None else float
        elif kind not in (bool, int, float):
            kind = str
        self.kinds.add(kind)
        if kind is int:
            self.least, self.most = min(self.least, value), max(self.most, value)
            self.exact = self.exact and _is_float(value)

    @property
    def type(self) -> FieldType:
        """A type that holds all of the values."""
        if self.kinds == {bool}:
            return FieldType.BOOL
        if self.kinds == {int}:
            for kind, held in ((FieldType.INT64, _INT64), (FieldType.UINT64, _UINT64)):
                if self.least in held and self.most in held:
                    return kind
        if self.kinds in ({float}, {int, float}) and self.exact:
            return FieldType.FLOAT64
        return FieldType.TEXT


def _is_float(value: int) -> bool:
    try:
        return float(value) == value
    except OverflowError:
        return False
