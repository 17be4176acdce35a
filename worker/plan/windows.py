"""The planner's second pass: the input again, in windows that fit in memory."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import orjson

from storage.streams.jsonl import Line
from worker.plan.check import check
from worker.plan.envelope import InputLine, LineRules
from worker.plan.rows import PlannedLine
from worker.plan.tokenize import Encoded, LineTokenizer, Prepared
from worker.problems import Problem

_BATCH_LINES = 512
_BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class WindowLimits:
    """How much is planned together: lines, and tokens of their prompts."""

    lines: int
    tokens: int


@dataclass(slots=True)
class Window:
    """Consecutive lines of the input; each is in one of the two lists.

    ``weight`` counts tokens, and what else takes memory, as tokens of four bytes.
    """

    lines: list[PlannedLine] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    weight: int = 0
    _params: dict[str, str] = field(default_factory=dict)

    def add(self, result: PlannedLine | Problem) -> None:
        """Add one line; equal parameters are kept once."""
        if isinstance(result, Problem):
            self.problems.append(result)
            self.weight += (len(result.custom_id or "") + len(result.message)) // 4
            return
        self.weight += result.weight(with_params=result.params not in self._params)
        params = self._params.setdefault(result.params, result.params)
        self.lines.append(result if params is result.params else replace(result, params=params))

    def full(self, limits: WindowLimits) -> bool:
        """Whether the limits are reached."""
        count = len(self.lines) + len(self.problems)
        return count >= limits.lines or self.weight >= limits.tokens


def windows(
    lines: Iterable[Line],
    bad: Iterable[Problem],
    rules: LineRules,
    tokenizer: LineTokenizer,
    limits: WindowLimits,
    heartbeat: Callable[[], None],
) -> Iterator[Window]:
    """Tokenize the input, window by window.

    Args:
        bad: the problems that the first pass found, in line order; these lines are not checked
            again.
        heartbeat: called for every line; it raises to end the pass.
    """
    window = Window()
    for results in _tokenized(_batches(_checked(lines, bad, rules), limits.lines), tokenizer):
        for result in results:
            heartbeat()
            window.add(result)
        if window.full(limits):
            yield window
            window = Window()
    if window.lines or window.problems:
        yield window


def _tokenized(
    batches: Iterable[list[InputLine | Problem]], tokenizer: LineTokenizer
) -> Iterator[list[PlannedLine | Problem]]:
    """The lines of each batch; a thread tokenizes them while this one reads the next batch."""
    ahead: deque[tuple[list[Problem], Prepared, Future[Encoded]]] = deque()

    def finish_first() -> list[PlannedLine | Problem]:
        problems, prepared, encoded = ahead.popleft()
        return [*problems, *tokenizer.finish(prepared, encoded.result())]

    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as pool:
        for batch in batches:
            problems = [entry for entry in batch if isinstance(entry, Problem)]
            prepared = tokenizer.prepare(entry for entry in batch if isinstance(entry, InputLine))
            ahead.append((problems, prepared, pool.submit(tokenizer.encode, prepared)))
            if len(ahead) > 1:
                yield finish_first()
        while ahead:
            yield finish_first()


def _checked(
    lines: Iterable[Line], bad: Iterable[Problem], rules: LineRules
) -> Iterator[tuple[InputLine | Problem, int]]:
    """(line, or its problem of the first pass; size in bytes) for each line."""
    problems = iter(bad)
    next_bad = next(problems, None)
    for line in lines:
        if next_bad is not None and next_bad.line == line.number:
            yield _with_custom_id(next_bad, line), len(line.data)
            next_bad = next(problems, None)
        else:
            yield check(line, rules), len(line.data)


def _with_custom_id(problem: Problem, line: Line) -> Problem:
    """The problem with the line's custom_id, of which the first pass kept only a digest."""
    if problem.code != "duplicate_custom_id":
        return problem
    return replace(problem, custom_id=orjson.loads(line.data)["custom_id"])


def _batches(
    entries: Iterable[tuple[InputLine | Problem, int]], most: int
) -> Iterator[list[InputLine | Problem]]:
    batch: list[InputLine | Problem] = []
    size = 0
    for entry, bytes_ in entries:
        batch.append(entry)
        size += bytes_
        if len(batch) >= min(_BATCH_LINES, most) or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
