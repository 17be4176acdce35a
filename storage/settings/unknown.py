"""Variables that look like settings and are none: most often a misspelled name."""

import os
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache

import structlog

from storage.settings.load import NAMES, PREFIX, file_variables, variable

# The client commands read TIDEMILL_URL and TIDEMILL_API_KEY for --url and --api-key.
KNOWN = sorted(NAMES | {"url", "api_key"})

log = structlog.get_logger(__name__)


def unknown_variables() -> Mapping[str, str | None]:
    """Variables of the environment and ``.env`` that nothing reads, each with the nearest known.

    ``None`` stands where no known one is near. As everywhere, a name's case does not matter.
    """
    upper = (name.upper() for name in (*os.environ, *file_variables()))
    named = {name.removeprefix(PREFIX).lower() for name in upper if name.startswith(PREFIX)}
    return {variable(name): _nearest(name) for name in sorted(named.difference(KNOWN))}


@cache
def warn_of_unknown_variables() -> None:
    """Name them all in one line of the log, once a process."""
    if unknown := unknown_variables():
        found = (
            name if near is None else f"{name} (did you mean {near}?)"
            for name, near in unknown.items()
        )
        log.warning("unknown_settings", found=", ".join(found), meaning="Nothing reads them.")


def _nearest(name: str) -> str | None:
    return next(map(variable, get_close_matches(name, KNOWN, n=1)), None)
