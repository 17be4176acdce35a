"""Whether a result file can be made, found out by making it."""

from contextlib import suppress
from pathlib import Path

from tidemill.run.files import WholeFile


class _Probed(Exception):
    """The file could be made; a file that is not written to its end is not kept."""


def check_can_write(path: Path) -> None:
    """Find out whether a `WholeFile` of this path can be made, and leave nothing behind.

    Raises:
        TidemillError: it cannot.
    """
    with suppress(_Probed), WholeFile(path):
        raise _Probed
