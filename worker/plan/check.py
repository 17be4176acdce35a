"""The planner's first pass, in flat memory: every line's envelope, and doubled custom_ids."""

import heapq
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.datasets.values.origins import Origins
from storage.streams.jsonl import Line
from worker.errors import PlanRefused
from worker.plan.duplicates import CustomIds
from worker.plan.envelope import InputLine, LineRules, check_line, too_long
from worker.plan.retry import EVERY_LINE
from worker.plan.spool import ProblemSpool
from worker.problems import Problem


@dataclass(frozen=True, slots=True)
class Checked:
    """What the first pass found among the lines that are to be planned.

    Attributes:
        n_lines: lines that are not blank.
        models: number of good lines by model; those with doubled custom_ids count too.
        problems: one for each bad line, in line order; can be read more than once.
    """

    n_lines: int
    models: Counter[str]
    problems: ProblemSpool


def check_lines(
    lines: Iterable[Line],
    rules: LineRules,
    folder: Path,
    *,
    max_lines: int,
    heartbeat: Callable[[], None],
    chosen: Container[int] = EVERY_LINE,
    origins: Origins | None = None,
) -> Checked:
    """Read the whole input once.

    Args:
        folder: an empty folder for temporary files.
        max_lines: most lines that a batch may have.
        heartbeat: called for every line; it raises to end the pass.
        chosen: the numbers of the lines to plan. Doubled custom_ids are looked for in all lines, so
            a line that was refused for one is refused again when it is retried.
        origins: where the lines come from, once they are read.

    Raises:
        PlanRefused: there are no lines to plan, or too many.
    """
    envelope = ProblemSpool(folder / "envelope")
    ids = CustomIds(folder)
    models: Counter[str] = Counter()
    count = 0
    for line in lines:
        heartbeat()
        found = check(line, rules)
        wanted = line.number in chosen
        if found.custom_id is not None:
            ids.add(found.custom_id, line.number, wanted)
        if not wanted:
            continue
        count += 1
        if count > max_lines:
            raise PlanRefused(f"The batch has more than {max_lines} lines.", code="too_many_tasks")
        if isinstance(found, Problem):
            envelope.append(found)
        else:
            models[found.model] += 1
    if count == 0:
        raise PlanRefused("The input file has no lines to run.", code="empty_batch")
    problems = ProblemSpool(folder / "problems")
    for problem in _one_a_line(envelope, ids, origins or Origins()):
        problems.append(problem)
    return Checked(count, models, problems)


def check(line: Line, rules: LineRules) -> InputLine | Problem:
    """Check one line of the input."""
    if line.error is not None:
        return too_long(line.number, line.error)
    return check_line(line.number, line.data, rules)


def _one_a_line(envelope: Iterable[Problem], ids: CustomIds, origins: Origins) -> Iterator[Problem]:
    doubled = (
        Problem(
            line,
            "duplicate_custom_id",
            f"The custom_id of this line was used before, on {_place(first, origins)}.",
            "custom_id",
        )
        for line, first in ids.duplicates()
    )
    before = 0
    for problem in heapq.merge(envelope, doubled, key=lambda problem: problem.line):
        if problem.line != before:
            yield problem
        before = problem.line


def _place(line: int, origins: Origins) -> str:
    origin = origins.of(line)
    return f"line {line}" if origin is None else f"row {origin.row} of {origin.file}"
