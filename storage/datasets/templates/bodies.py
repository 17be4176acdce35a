"""From what stands in a template to what makes it of a row: texts, values, lists and objects."""

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from jinja2 import nodes

from storage.datasets.templates.expressions import Expression, Frame
from storage.datasets.templates.limits import TEXT, Meter, TemplateLimits
from storage.datasets.templates.markup import (
    Place,
    check_text,
    count_symbols,
    has_markup,
    parse_markup,
)
from storage.datasets.templates.operations import concat
from storage.datasets.templates.plain_data import MISSING, text_of, weigh
from storage.datasets.templates.statements import Statements
from storage.errors import RowFault

_MAX_DEPTH: Final = 64
_TEXTS: Final = (".messages", ".prompt")  # below these, numbers and booleans become texts
_ERRORS = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)

LEFT_OUT: Final = object()
"""What an entry is that a row has nothing for."""

Row = Mapping[str, Any]
Build = Callable[[Row, Meter], Any]


class Bodies:
    """Makes functions of what stands in a template.

    Attributes:
        columns: the columns that are read, and where first.
    """

    def __init__(self, limits: TemplateLimits) -> None:
        self.columns: dict[str, Place] = {}
        self._limits = limits
        self._symbols_left = limits.max_symbols

    def build(self, held: Any, place: Place, depth: int = 0) -> Build | None:
        """What makes a value of a row; ``None`` where it is the same for every row.

        Raises:
            TemplateError: it is no value of JSON, or a text in it is no template.
        """
        if depth > _MAX_DEPTH:
            raise place.error(f"it is nested more than {_MAX_DEPTH} deep.")
        match held:
            case str():
                return self._text(held, place)
            case list():
                builds = {
                    at: build
                    for at, item in enumerate(held)
                    if (build := self.build(item, place.inside(at), depth + 1)) is not None
                }
                return _list_build(held, builds) if builds else None
            case dict():
                named = {}
                for name, item in held.items():
                    if not isinstance(name, str):
                        raise place.error("the names in an object are texts.")
                    check_text(name, place)
                    build = self.build(item, place.inside(name), depth + 1)
                    if build is not None:
                        named[name] = build
                return _object_build(held, named) if named else None
            case None | bool() | int():
                return None
            case float() if math.isfinite(held):
                return None
            case _:
                raise place.error("it is no value of JSON.")

    def _text(self, source: str, place: Place) -> Build | None:
        check_text(source, place)
        if not has_markup(source):
            return None
        self._symbols_left -= TEXT + count_symbols(source, place, self._symbols_left)
        if self._symbols_left < 0:
            most = self._limits.max_symbols
            raise place.error(f"the template has more than {most:,} symbols in its expressions.")
        tree = parse_markup(source, place)
        compiler = Statements(place)
        try:
            build = self._compiled(tree.body, compiler, place)
        except RecursionError:
            raise place.error("it is nested too deeply.") from None
        for column in compiler.columns:
            self.columns.setdefault(column, place)
        return _guarded(build, place)

    def _compiled(self, body: list[nodes.Node], compiler: Statements, place: Place) -> Build:
        match body:
            case [nodes.Output(nodes=[expression])] if not _is_data(expression):
                value_of = compiler.expression(expression)
                return _value_build(value_of, as_text=_takes_text(place))
            case [nodes.Output(nodes=pieces)] if all(
                isinstance(each, nodes.TemplateData | nodes.Name) for each in pieces
            ):
                compiler.statements(body)
                return _plain_build(pieces)
        run = compiler.statements(body)

        def build(row: Row, meter: Meter) -> str:
            frame = Frame(row, meter, {}, [])
            run(frame)
            return concat(meter, frame.texts)

        return build


def _is_data(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData)


def _takes_text(place: Place) -> bool:
    return place.path.removeprefix(".body").startswith(_TEXTS)


def _plain_build(pieces: list[nodes.Expr]) -> Build:
    """Of a template that has nothing but text and columns: no interpreter runs for it."""
    texts, names = [""], []
    for each in pieces:
        if isinstance(each, nodes.TemplateData):
            texts[-1] += each.data
        elif isinstance(each, nodes.Name):
            names.append(each.name)
            texts += ["", ""]
    columns = slice(1, None, 2)

    def build(row: Row, meter: Meter) -> str:
        made = texts.copy()
        values = map(row.get, names)
        made[columns] = [value if type(value) is str else text_of(meter, value) for value in values]
        return concat(meter, made)

    return build


def _value_build(expression: Expression, *, as_text: bool) -> Build:
    def build(row: Row, meter: Meter) -> Any:
        value = expression(Frame(row, meter, {}, []))
        if type(value) is str:
            meter.spend_text(len(value))
            return value
        if value is None or value is MISSING:
            return LEFT_OUT
        if as_text and not isinstance(value, list | dict):
            return text_of(meter, value)
        weigh(meter, value)
        return value

    return build


def _list_build(held: list[Any], builds: Mapping[int, Build]) -> Build:
    pairs = tuple(builds.items())

    def build(row: Row, meter: Meter) -> list[Any]:
        built = held.copy()
        for at, make in pairs:
            built[at] = make(row, meter)
        return [item for item in built if item is not LEFT_OUT]

    return build


def _object_build(held: dict[str, Any], builds: Mapping[str, Build]) -> Build:
    pairs = tuple(builds.items())

    def build(row: Row, meter: Meter) -> dict[str, Any]:
        built = held.copy()
        for name, make in pairs:
            value = make(row, meter)
            if value is LEFT_OUT:
                del built[name]
            else:
                built[name] = value
        return built

    return build


def _guarded(build: Build, place: Place) -> Build:
    """The same, with every fault told with its place."""
    where = f"The template{place.shown} cannot be rendered"

    def run(row: Row, meter: Meter) -> Any:
        try:
            return build(row, meter)
        except RowFault as fault:
            raise RowFault(f"{where}: {fault}.") from None
        except _ERRORS as error:
            raise RowFault(f"{where}: {_reason(error)}.") from None

    return run


def _reason(error: Exception) -> str:
    match error:
        case ZeroDivisionError():
            return "a number is divided by zero"
        case ArithmeticError():
            return "a number is out of range"
        case RecursionError():
            return "a value is nested too deeply"
        case _:
            return "an operation does not fit its values"
