"""Expressions of templates: each node of the syntax tree becomes a function of a frame."""

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from jinja2 import nodes

from storage.datasets.templates.filters import FILTERS, METHODS, TESTS, Function, make_range
from storage.datasets.templates.limits import Meter
from storage.datasets.templates.markup import SHOWN_NAME, Place, check_text, did_you_mean
from storage.datasets.templates.operations import (
    BINARY,
    COMPARISONS,
    MAX_BITS,
    checked,
    concat,
    number_of,
)
from storage.datasets.templates.plain_data import (
    MISSING,
    is_true,
    member,
    or_null,
    piece,
    text_of,
)
from storage.errors import RowFault, TemplateError

ROW: Final = "row"
RANGE: Final = "range"


@dataclass(slots=True)
class Frame:
    """What a template sees while it is rendered.

    Attributes:
        row: the columns.
        local: the names that the template itself has set.
        texts: what has come out.
    """

    row: Mapping[str, Any]
    meter: Meter
    local: dict[str, Any]
    texts: list[str]


Expression = Callable[[Frame], Any]


class Expressions:
    """Makes functions of expressions.

    Attributes:
        columns: the columns that are read, by what was made so far.
        weight: how many operations that is; what loops hold is not counted.
    """

    def __init__(self, place: Place) -> None:
        self.columns: set[str] = set()
        self.weight = 0
        self.assigned: set[str] = set()  # for certain, where the next node stands
        self.touched: set[str] = set()  # perhaps
        self._place = place

    def expression(self, node: nodes.Node) -> Expression:
        """The function of an expression.

        Raises:
            TemplateError: there is something in it that templates do not have.
        """
        self.weight += 1
        match node:
            case nodes.Const():
                return self._constant(node)
            case nodes.Name():
                return self._name(node)
            case nodes.Getattr() | nodes.Getitem():
                return self._entry(node)
            case nodes.Filter():
                return self._filtered(node)
            case nodes.Test():
                tested = self._applied(node, node.node, TESTS, node.name, "test")
                return lambda frame: is_true(tested(frame))
            case nodes.Call():
                return self._call(node)
            case nodes.Compare():
                return self._comparison(node)
            case nodes.Concat():
                return self._concat(node)
            case nodes.CondExpr():
                return self._choice(node)
            case nodes.UnaryExpr():
                return self._unary(node)
            case nodes.BinExpr():
                return self._binary(node)
            case nodes.List() | nodes.Tuple():
                return self._list(node)
            case nodes.Dict():
                return self._object(node)
            case _:
                raise self.refused(node)

    def error(self, node: nodes.Node, what: str) -> TemplateError:
        """The error of what is wrong at a node."""
        return self._place.error(what, node.lineno)

    def refused(self, node: nodes.Node) -> TemplateError:
        """The error of a node that templates do not have."""
        name = type(node).__name__.lower()
        return self.error(node, f"{name!r} is not something that a template for rows can do.")

    def _constant(self, node: nodes.Const) -> Expression:
        value = node.value
        large = isinstance(value, int) and value.bit_length() > MAX_BITS
        if large or (isinstance(value, float) and not math.isfinite(value)):
            raise self.error(node, "it has a number that is out of range.")
        if isinstance(value, str):
            check_text(value, self._place)
        return lambda frame: value

    def _name(self, node: nodes.Name) -> Expression:
        name = node.name
        if name in self.assigned:
            return lambda frame: frame.local[name]
        column = self._column(name)
        if name not in self.touched:
            return column
        return lambda frame: frame.local[name] if name in frame.local else column(frame)

    def _column(self, name: str) -> Expression:
        self.columns.add(name)
        return lambda frame: frame.row.get(name, MISSING)

    def _entry(self, node: nodes.Getattr | nodes.Getitem) -> Expression:
        if isinstance(node, nodes.Getattr):
            argument: nodes.Expr = nodes.Const(node.attr, lineno=node.lineno)
        else:
            argument = node.arg
        owner = node.node
        if isinstance(owner, nodes.Name) and owner.name == ROW and ROW not in self.assigned:
            if not (isinstance(argument, nodes.Const) and isinstance(argument.value, str)):
                raise self.error(node, "row[…] takes the name of a column, in quotes.")
            return self._column(argument.value)
        held = self.expression(owner)
        if isinstance(argument, nodes.Slice):
            return self._piece(held, argument)
        name = self.expression(argument)
        return lambda frame: member(held(frame), name(frame))

    def _piece(self, held: Expression, node: nodes.Slice) -> Expression:
        bounds = [
            self.expression(bound) if bound is not None else lambda frame: None
            for bound in (node.start, node.stop, node.step)
        ]
        return lambda frame: piece(
            frame.meter, held(frame), slice(*(or_null(bound(frame)) for bound in bounds))
        )

    def _filtered(self, node: nodes.Filter) -> Expression:
        if node.node is None:
            raise self.refused(node)
        return self._applied(node, node.node, FILTERS, node.name, "filter")

    def _call(self, node: nodes.Call) -> Expression:
        called = node.node
        if isinstance(called, nodes.Getattr):
            return self._applied(node, called.node, METHODS, called.attr, "method")
        if isinstance(called, nodes.Name) and called.name == RANGE:
            return self._applied(node, None, {RANGE: make_range}, RANGE, "function")
        name = f"{called.name[:SHOWN_NAME]}(…)" if isinstance(called, nodes.Name) else "this"
        raise self.error(node, f"{name} cannot be called; there are filters, and range(…).")

    def _applied(
        self,
        node: nodes.Filter | nodes.Test | nodes.Call,
        subject: nodes.Expr | None,
        table: Mapping[str, Function],
        name: str,
        what: str,
    ) -> Expression:
        function = table.get(name)
        if function is None:
            known = ", ".join(sorted(table))
            raise self.error(
                node,
                f"there is no {what} {name[:SHOWN_NAME]!r}.{did_you_mean(name, table)} "
                f"There are: {known}.",
            )
        if node.dyn_args is not None or node.dyn_kwargs is not None:
            raise self.error(node, "arguments are given one by one, without * and **.")
        given = [self.expression(each) for each in (*([subject] if subject else []), *node.args)]
        named = {str(each.key): self.expression(each.value) for each in node.kwargs}
        try:
            _signature(function).bind(None, *given, **named)
        except TypeError:
            takes = _parameters(function, subject)
            raise self.error(node, f"the {what} {name!r} takes {takes}.") from None
        if len(given) == 1 and not named:
            only = given[0]
            return lambda frame: function(frame.meter, only(frame))
        first, *others = given
        return lambda frame: function(
            frame.meter,
            first(frame),
            *(or_null(each(frame)) for each in others),
            **{key: or_null(each(frame)) for key, each in named.items()},
        )

    def _comparison(self, node: nodes.Compare) -> Expression:
        first = self.expression(node.expr)
        rest = [(COMPARISONS[each.op], self.expression(each.expr)) for each in node.ops]

        def compare(frame: Frame) -> bool:
            left = first(frame)
            for relation, operand in rest:
                right = operand(frame)
                if not relation(frame.meter, left, right):
                    return False
                left = right
            return True

        return compare

    def _concat(self, node: nodes.Concat) -> Expression:
        operands = [self.expression(each) for each in node.nodes]
        return lambda frame: concat(
            frame.meter, [text_of(frame.meter, each(frame)) for each in operands]
        )

    def _choice(self, node: nodes.CondExpr) -> Expression:
        test, chosen = self.expression(node.test), self.expression(node.expr1)
        other = self.expression(node.expr2) if node.expr2 is not None else lambda frame: MISSING
        return lambda frame: chosen(frame) if is_true(test(frame)) else other(frame)

    def _unary(self, node: nodes.UnaryExpr) -> Expression:
        held = self.expression(node.node)
        match node:
            case nodes.Not():
                return lambda frame: not is_true(held(frame))
            case nodes.Neg():
                return lambda frame: checked(-number_of(held(frame)))
            case _:
                return lambda frame: number_of(held(frame))

    def _binary(self, node: nodes.BinExpr) -> Expression:
        left, right = self.expression(node.left), self.expression(node.right)
        if isinstance(node, nodes.And):
            return lambda frame: right(frame) if is_true(value := left(frame)) else value
        if isinstance(node, nodes.Or):
            return lambda frame: value if is_true(value := left(frame)) else right(frame)
        operate = BINARY[node.operator]
        return lambda frame: operate(frame.meter, left(frame), right(frame))

    def _list(self, node: nodes.List | nodes.Tuple) -> Expression:
        items = [self.expression(each) for each in node.items]
        return lambda frame: [or_null(each(frame)) for each in items]

    def _object(self, node: nodes.Dict) -> Expression:
        pairs = [(self.expression(each.key), self.expression(each.value)) for each in node.items]

        def build(frame: Frame) -> dict[str, Any]:
            built = {}
            for name, value in pairs:
                named = name(frame)
                if not isinstance(named, str):
                    raise RowFault("the names in an object are texts")
                built[named] = or_null(value(frame))
            return built

        return build


@cache
def _signature(function: Function) -> inspect.Signature:
    return inspect.signature(function)


def _parameters(function: Function, subject: nodes.Expr | None) -> str:
    own = list(_signature(function).parameters)[1 if subject is None else 2 :]
    return ", ".join(own) or "no arguments"
