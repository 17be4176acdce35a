"""How log lines look: one line each on stderr, in colour on a terminal, as JSON elsewhere."""

import logging
import sys

import structlog


def configure_logs(level: str) -> None:
    """Set the level of everything that logs through structlog or the standard library."""
    number = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    terminal = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(
                fmt="%H:%M:%S" if terminal else "iso", utc=not terminal
            ),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer() if terminal else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # Libraries speak up only when something is wrong.
    logging.basicConfig(level=max(number, logging.WARNING), stream=sys.stderr, force=True)
    # It warns of every in-memory broker that it has no host name.
    logging.getLogger("kombu.connection").setLevel(logging.ERROR)
