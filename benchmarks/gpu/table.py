"""One table of all sections: Markdown for docs/benchmarks, and short enough for a screen."""

from collections.abc import Mapping, Sequence
from typing import Any

MOST_CHARACTERS = 9_000
_CUT = "… the rest is in the file."


def render(
    facts: Mapping[str, str], sections: Mapping[str, tuple[str, Sequence[Mapping[str, Any]]]]
) -> str:
    """Facts as a list, then a heading, how it ended and a table for each section."""
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    for name, (ended, rows) in sections.items():
        lines += ["", f"## {name}", "", ended, ""]
        columns = list(dict.fromkeys(column for row in rows for column in row))
        if columns:
            lines.append(_line(columns))
            lines.append(_line(["---"] * len(columns)))
            lines += [_line([row.get(column, "") for column in columns]) for row in rows]
    return "\n".join(lines) + "\n"


def shortened(text: str) -> str:
    """The beginning that fits on a screen, in whole lines."""
    if len(text) <= MOST_CHARACTERS:
        return text
    kept = text[: MOST_CHARACTERS - len(_CUT) - 1].rsplit("\n", 1)[0]
    return f"{kept}\n{_CUT}"


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(str(cell).replace('|', '/') for cell in cells)} |"
