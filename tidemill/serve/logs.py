"""How log lines look: one line each on stderr, in colour on a terminal, as JSON elsewhere."""

import json
import logging
import sys
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from storage.settings import Settings
from storage.settings.unknown import warn_of_unknown_variables
from tidemill.terminal import json_printable, printable


def start_logs(settings: Settings) -> None:
    """Set the log up for a command, and name in it the variables that nothing reads."""
    configure_logs(settings.process.log_level)
    warn_of_unknown_variables()


def configure_logs(level: str) -> None:
    """Set the level of everything that logs through structlog or the standard library."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    terminal = sys.stderr.isatty()
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if terminal else "iso", utc=not terminal),
    ]
    rendered: list[Processor] = (
        [_spell_out, structlog.dev.ConsoleRenderer()]
        if terminal
        else [structlog.processors.JSONRenderer(_json)]
    )
    last: list[Processor] = [structlog.processors.format_exc_info, *rendered]
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak up only when something is wrong.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _one_line],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)


def _spell_out(logger: object, method: str, event: EventDict) -> EventDict:
    """Nothing in it that a terminal would obey; a traceback's lines stand apart from the log's."""
    shown = {
        name: printable(value) if isinstance(value, str) else value
        for name, value in event.items()
        if name != "exception"
    }
    if "exception" in event:
        lines = str(event["exception"]).splitlines()
        shown["exception"] = "\n".join("    " + printable(line) for line in lines)
    return shown


def _json(event: EventDict, **options: Any) -> str:
    return json_printable(json.dumps(event, **options))


def _one_line(logger: object, method: str, event: EventDict) -> EventDict:
    """A library's message on one line, under the name of who said it."""
    record: logging.LogRecord = event["_record"]
    return {**event, "event": " ".join(str(event["event"]).split()), "logger": record.name}
