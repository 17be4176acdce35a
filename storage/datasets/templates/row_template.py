"""A template that makes a request's body of a row."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from storage.datasets.templates.bodies import Bodies, Build
from storage.datasets.templates.limits import Meter, TemplateLimits
from storage.datasets.templates.markup import PARAM, SHOWN_NAME, Place, did_you_mean, has_markup
from storage.datasets.templates.plain_data import text_of
from storage.datasets.values.rows import listed
from storage.endpoints import CHAT_COMPLETIONS, COMPLETIONS
from storage.errors import RowFault, TemplateError

Spec = str | list[Any] | dict[str, Any]

BODY: Final = "body"
MESSAGES: Final = "messages"
PROMPT: Final = "prompt"
_SHOWN_UNKNOWN: Final = 8


class RowTemplate:
    """A template, compiled. Threads may share it.

    Attributes:
        columns: the names of all columns that it reads.
    """

    def __init__(
        self,
        body: dict[str, Any],
        build: Build | None,
        places: Mapping[str, Place],
        limits: TemplateLimits,
    ) -> None:
        self.columns = frozenset(places)
        self._body = body
        self._build = build
        self._places = places
        self._limits = limits

    @classmethod
    def parse(cls, spec: Spec, *, limits: TemplateLimits = TemplateLimits()) -> "RowTemplate":
        """The template that a text, a list or an object is.

        A text is the prompt: of a chat, its one user message. A list is the messages. An object is
        the request's body, as it is or alone under ``body``; it has ``messages``, or a ``prompt``
        that is used as a text is.

        Every text in them is a template. One that is a single expression gives that expression's
        value, and its entry is left out where the value is null; in messages and prompts, which
        are texts, a number or a boolean becomes one. Any other template gives a text.

        Args:
            spec: it must not be changed afterwards.

        Raises:
            TemplateError: it has another shape, or a text in it is no template.
        """
        place = Place()
        match spec:
            case str():
                body: Any = {PROMPT: spec}
            case list():
                body = {MESSAGES: spec}
            case {"body": dict()} if len(spec) == 1:
                body, place = spec[BODY], place.inside(BODY)
            case _:
                body = spec
        _check_shape(body, place)
        bodies = Bodies(limits)
        return cls(body, bodies.build(body, place), bodies.columns, limits)

    @property
    def names_model(self) -> bool:
        """Whether it makes bodies that name their model."""
        return "model" in self._body

    def check(self, names: Collection[str]) -> None:
        """Check that every column that is read is one of a dataset's.

        Raises:
            TemplateError: one is not.
        """
        known = frozenset(names)
        unknown = [name for name in self._places if name not in known]
        if not unknown:
            return
        shown = [
            f"{name[:SHOWN_NAME]!r}.{did_you_mean(name, names)}"
            for name in unknown[:_SHOWN_UNKNOWN]
        ]
        raise TemplateError(
            f"The template reads what is no column: {' '.join(shown)} "
            f"The columns are {listed(names)}.",
            PARAM + self._places[unknown[0]].path,
        )

    def check_endpoint(self, endpoint: str) -> None:
        """Check that an endpoint takes what the template makes.

        Raises:
            TemplateError: it does not.
        """
        if endpoint == COMPLETIONS and PROMPT not in self._body:
            raise TemplateError(
                f"The template makes messages, and {COMPLETIONS} takes a prompt: write a text.",
                PARAM,
            )

    def body(self, fields: Mapping[str, Any], endpoint: str) -> dict[str, Any]:
        """The body of a row's request.

        What no column changes is shared by all bodies, so a body must not be changed.

        Args:
            fields: the row's values by their columns; a column that is missing counts as null.

        Raises:
            RowFault: the row has values that the template cannot be rendered with.
        """
        meter = Meter(self._limits)
        body = self._build(fields, meter) if self._build is not None else self._body
        if PROMPT not in self._body or MESSAGES in self._body:
            return body
        if PROMPT not in body:
            raise RowFault("The template gives no prompt: it is null in this row.")
        if endpoint != CHAT_COMPLETIONS:
            return body
        prompt = body[PROMPT]
        content = prompt if isinstance(prompt, str) else text_of(meter, prompt)
        made: dict[str, Any] = {MESSAGES: [{"role": "user", "content": content}]}
        made.update((name, value) for name, value in body.items() if name != PROMPT)
        return made


def _check_shape(body: Any, place: Place) -> None:
    if not isinstance(body, dict) or not (MESSAGES in body or PROMPT in body):
        raise place.error(
            "it is a text, a list of messages, or an object with messages or a prompt, and with "
            "other parameters of a request beside them."
        )
    prompt = body.get(PROMPT)
    if isinstance(prompt, str) and not prompt.strip():
        raise place.inside(PROMPT).error("it is empty.")
    messages = body.get(MESSAGES)
    if MESSAGES not in body or (isinstance(messages, str) and has_markup(messages)):
        return
    at = place.inside(MESSAGES)
    if not isinstance(messages, list) or not messages:
        raise at.error("messages are a list of objects with role and content.")
    for number, message in enumerate(messages):
        expression = isinstance(message, str) and has_markup(message)
        if not expression and not (isinstance(message, dict) and "role" in message):
            raise at.inside(number).error("a message is an object with role and content.")
