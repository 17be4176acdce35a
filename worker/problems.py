"""What is wrong with one line of the input."""

from dataclasses import dataclass
from typing import Any

from storage.datasets.values.origins import Origin, described


@dataclass(frozen=True, slots=True)
class Problem:
    """Why one line gets an error. ``line`` counts from 1; ``param`` is the field at fault."""

    line: int
    code: str
    message: str
    param: str | None = None
    custom_id: str | None = None

    def report(self, origin: Origin | None = None) -> dict[str, Any]:
        """The entry of a batch's ``errors.data`` and of its report file.

        Args:
            origin: where the line comes from, in a dataset.
        """
        return {
            "code": self.code,
            "message": self.message,
            "param": self.param,
            "line": self.line,
            **({} if origin is None else {"tidemill": described(origin)}),
        }
