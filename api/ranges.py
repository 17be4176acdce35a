"""The Range request header (RFC 9110, section 14), for one range of bytes."""

import re

from api.errors import ApiError

_ONE_RANGE = re.compile(r"bytes=\s*(\d*)\s*-\s*(\d*)\s*\Z", re.IGNORECASE | re.ASCII)
MAX_DIGITS = 19  # more than any file's size needs; keeps int() cheap


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The half-open byte range ``[start, end)`` of a header, or `None` for the whole file.

    A header of another form, or with several ranges, is ignored, as the standard allows.

    Raises:
        ApiError: 416 where the range lies outside of a file of ``size`` bytes.
    """
    match = _ONE_RANGE.match(header) if header else None
    if match is None:
        return None
    first, last = match.groups()
    if max(len(first), len(last)) > MAX_DIGITS or not (first or last):
        return None
    if not first:  # the last n bytes
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise ApiError(
            416,
            f"The range is outside of the file, which has {size} bytes.",
            param="Range",
            code="range_not_satisfiable",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, end
