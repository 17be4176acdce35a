"""Statements of templates: ``if``, ``for``, ``set``, ``with``, and text that comes out."""

from collections.abc import Callable, Iterable
from typing import Any, Final

from jinja2 import nodes

from storage.datasets.templates.expressions import Expressions, Frame
from storage.datasets.templates.limits import OPERATION
from storage.datasets.templates.operations import concat
from storage.datasets.templates.plain_data import entries, is_true, kind_of, text_of
from storage.errors import RowFault

LOOP: Final = "loop"

Statement = Callable[[Frame], None]
Bind = Callable[[dict[str, Any], Any], None]


class Statements(Expressions):
    """Makes functions of statements."""

    def statements(self, body: Iterable[nodes.Node]) -> Statement:
        """The function that does one statement after the other.

        Raises:
            TemplateError: there is something in them that templates do not have.
        """
        made = [each for node in body for each in self._statement(node)]
        if len(made) == 1:
            return made[0]

        def run(frame: Frame) -> None:
            for each in made:
                each(frame)

        return run

    def _statement(self, node: nodes.Node) -> list[Statement]:
        match node:
            case nodes.Output():
                return [self._output(each) for each in node.nodes]
            case nodes.If():
                return [self._if(node)]
            case nodes.For():
                return [self._for(node)]
            case nodes.Assign():
                return [self._assign(node)]
            case nodes.AssignBlock():
                return [self._capture(node)]
            case nodes.With():
                return [self._with(node)]
            case _:
                raise self.refused(node)

    def _output(self, node: nodes.Expr) -> Statement:
        if isinstance(node, nodes.TemplateData):
            data = node.data
            self.weight += 1
            return lambda frame: frame.texts.append(data)
        held = self.expression(node)
        return lambda frame: frame.texts.append(text_of(frame.meter, held(frame)))

    def _if(self, node: nodes.If) -> Statement:
        cases = []
        outside, after = self.assigned, []
        for each in (node, *node.elif_):
            test = self.expression(each.test)
            self.assigned = set(outside)
            cases.append((test, self.statements(each.body)))
            after.append(self.assigned)
            self.assigned = outside
        self.assigned = set(outside)
        otherwise = self.statements(node.else_)
        self.assigned = self.assigned.intersection(*after)

        def run(frame: Frame) -> None:
            for test, body in cases:
                if is_true(test(frame)):
                    body(frame)
                    return
            otherwise(frame)

        return run

    def _for(self, node: nodes.For) -> Statement:
        if node.recursive:
            raise self.error(node, "loops cannot be recursive.")
        items = self.expression(node.iter)
        outside, weight = self.assigned, self.weight
        names, bind = self._target(node.target)
        self.assigned, self.weight = {*outside, *names}, len(outside)
        test = self.expression(node.test) if node.test is not None else None
        self.assigned.add(LOOP)
        body = self.statements(node.body)
        cost = OPERATION * (self.weight + 1)
        self.assigned, self.weight = set(outside), weight
        otherwise = self.statements(node.else_)
        self.assigned = outside
        counted = any(each.name == LOOP for each in node.find_all(nodes.Name))

        def run(frame: Frame) -> None:
            held = entries(frame.meter, items(frame))
            frame.meter.spend(cost * len(held))
            if test is not None:
                held = [item for item in held if is_true(test(_inside(frame, bind, item)))]
            if not held:
                otherwise(_copy(frame))
            for place, item in enumerate(held):
                inner = _inside(frame, bind, item)
                if counted:
                    inner.local[LOOP] = _loop(place, len(held))
                body(inner)

        return run

    def _assign(self, node: nodes.Assign) -> Statement:
        held = self.expression(node.node)
        names, bind = self._target(node.target)
        self._assigned(names)
        return lambda frame: bind(frame.local, held(frame))

    def _capture(self, node: nodes.AssignBlock) -> Statement:
        outside = self.assigned
        self.assigned = set(outside)
        body = self.statements(node.body)
        self.assigned = outside
        if node.filter is not None:
            raise self.error(node, "{% set … %} takes no filter here; use it in an expression.")
        names, bind = self._target(node.target)
        self._assigned(names)

        def run(frame: Frame) -> None:
            inner = Frame(frame.row, frame.meter, frame.local.copy(), [])
            body(inner)
            bind(frame.local, concat(frame.meter, inner.texts))

        return run

    def _with(self, node: nodes.With) -> Statement:
        values = [self.expression(each) for each in node.values]
        outside = self.assigned
        targets = [self._target(each) for each in node.targets]
        self.assigned = outside.union(*(names for names, _ in targets))
        body = self.statements(node.body)
        self.assigned = outside
        binds = [bind for _, bind in targets]

        def run(frame: Frame) -> None:
            inner = _copy(frame)
            for bind, value in zip(binds, values, strict=True):
                bind(inner.local, value(frame))
            body(inner)

        return run

    def _assigned(self, names: list[str]) -> None:
        self.assigned.update(names)
        self.touched.update(names)

    def _target(self, node: nodes.Node) -> tuple[list[str], Bind]:
        """The names that are set, and what sets them to a value."""
        match node:
            case nodes.Name(name=name):
                return [name], lambda local, value: local.__setitem__(name, value)
            case nodes.Tuple(items=items) if all(isinstance(each, nodes.Name) for each in items):
                names = [each.name for each in items if isinstance(each, nodes.Name)]
                return names, _unpacking(names)
            case _:
                raise self.error(node, "only names, or several with commas, can be set.")


def _unpacking(names: list[str]) -> Bind:
    def bind(local: dict[str, Any], value: Any) -> None:
        if not isinstance(value, list) or len(value) != len(names):
            found = f"{len(value)} values" if isinstance(value, list) else kind_of(value)
            raise RowFault(f"{len(names)} names are set, to {found}")
        local.update(zip(names, value, strict=True))

    return bind


def _copy(frame: Frame) -> Frame:
    return Frame(frame.row, frame.meter, frame.local.copy(), frame.texts)


def _inside(frame: Frame, bind: Bind, item: Any) -> Frame:
    inner = _copy(frame)
    bind(inner.local, item)
    return inner


def _loop(place: int, length: int) -> dict[str, Any]:
    return {
        "index": place + 1,
        "index0": place,
        "revindex": length - place,
        "revindex0": length - place - 1,
        "first": place == 0,
        "last": place == length - 1,
        "length": length,
    }
