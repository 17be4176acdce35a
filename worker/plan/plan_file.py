"""A plan file: one chunk of a job's plan, as an Arrow IPC file.

One row a line, in the plan's order. Columns:

- ``line`` int64: the input's line number, from 1
- ``custom_id`` string, null where the line had none
- ``leader`` int64: plan position of the row whose response this line gets; its own for most rows
- ``tokens`` list<int32>: the prompt, or all prompts one behind the other; empty for rows that are
  not leaders
- ``lengths`` list<int32>: of a leader with several prompts, the tokens of each; empty for others
- ``texts`` list<string>: of a leader whose response begins with its prompt, each prompt's text
- ``params`` dictionary<string>: sampling parameters as JSON; null where there is nothing to run
- ``problem`` string: JSON of the error that this line gets; null for good lines

Schema metadata: ``version``, ``start`` (plan position of the first row), ``endpoint``, ``source``
(what the model's engine loads), ``salt`` (it keeps tenants' prefix caches apart) and, of a dataset,
``files``: JSON of the first line and the name of each file that lines of this chunk come from.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from engine.params import SamplingParams
from storage.datasets.values.origins import Origins
from worker.errors import BrokenPlan
from worker.plan.rows import Group, PlannedLine, split, unpack_params, unpack_tokens
from worker.problems import Problem

VERSION = b"1"

SCHEMA = pa.schema(
    [
        pa.field("line", pa.int64(), nullable=False),
        pa.field("custom_id", pa.string()),
        pa.field("leader", pa.int64(), nullable=False),
        pa.field("tokens", pa.list_(pa.int32()), nullable=False),
        pa.field("lengths", pa.list_(pa.int32()), nullable=False),
        pa.field("texts", pa.list_(pa.string()), nullable=False),
        pa.field("params", pa.dictionary(pa.int32(), pa.string())),
        pa.field("problem", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """What holds for every row of a plan file.

    Attributes:
        files: of a dataset, the first line and the name of each file that lines come from.
    """

    start: int
    endpoint: str
    source: str
    salt: str
    files: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One line of a chunk. ``leader`` is the plan position of the row whose response it gets."""

    line: int
    custom_id: str | None
    leader: int
    problem: Problem | None


def encode_groups(header: PlanHeader, groups: Sequence[Group]) -> bytes:
    """The plan file of groups that are to be run."""
    columns = _Columns()
    position = header.start
    for group in groups:
        leader = position
        for row in group.lines:
            leads = row if position == leader else None
            columns.add(row.line, row.custom_id, leader, leads, row.params, None)
            position += 1
    return columns.encode(header)


def encode_problems(header: PlanHeader, problems: Sequence[Problem]) -> bytes:
    """The plan file of lines that get an error and are not run."""
    columns = _Columns()
    for position, problem in enumerate(problems, header.start):
        text = orjson.dumps([problem.code, problem.message, problem.param]).decode()
        columns.add(problem.line, problem.custom_id, position, None, None, text)
    return columns.encode(header)


class _Columns:
    def __init__(self) -> None:
        self._rows: list[tuple[int, str | None, int, str | None, str | None]] = []
        self._tokens: list[bytes] = []
        self._lengths: list[tuple[int, ...]] = []
        self._texts: list[tuple[str, ...]] = []

    def add(
        self,
        line: int,
        custom_id: str | None,
        leader: int,
        prompts: PlannedLine | None,
        params: str | None,
        problem: str | None,
    ) -> None:
        """Add a row; ``prompts`` is the line again where it is a leader."""
        self._rows.append((line, custom_id, leader, params, problem))
        self._tokens.append(prompts.tokens if prompts else b"")
        self._lengths.append(prompts.lengths if prompts else ())
        self._texts.append(prompts.texts if prompts else ())

    def encode(self, header: PlanHeader) -> bytes:
        line, custom_id, leader, params, problem = zip(*self._rows, strict=True)
        offsets = np.zeros(len(self._tokens) + 1, dtype=np.int32)
        np.cumsum([len(packed) // 4 for packed in self._tokens], out=offsets[1:])
        tokens = pa.ListArray.from_arrays(offsets, unpack_tokens(b"".join(self._tokens)))
        schema = SCHEMA.with_metadata(
            {
                b"version": VERSION,
                b"start": str(header.start).encode(),
                b"endpoint": header.endpoint.encode(),
                b"source": header.source.encode(),
                b"salt": header.salt.encode(),
                **({b"files": orjson.dumps(header.files)} if header.files else {}),
            }
        )
        arrays = [
            pa.array(line, pa.int64()),
            pa.array(custom_id, pa.string()),
            pa.array(leader, pa.int64()),
            tokens,
            pa.array(self._lengths, pa.list_(pa.int32())),
            pa.array(self._texts, pa.list_(pa.string())),
            pa.array(params, pa.string()).dictionary_encode(),
            pa.array(problem, pa.string()),
        ]
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(pa.record_batch(arrays, schema=schema))
        return bytes(sink.getvalue().to_pybytes())


class PlanFile:
    """A plan file in memory; it takes about four bytes a token of its chunk's prompts.

    Attributes:
        origins: where the lines come from, if they are those of a dataset.
    """

    def __init__(self, data: bytes) -> None:
        """Raises `BrokenPlan` if ``data`` is no plan file."""
        try:
            with pa.ipc.open_file(pa.py_buffer(data)) as reader:
                self._batch: Any = reader.get_batch(0)
            metadata = self._batch.schema.metadata
            self.header = PlanHeader(
                start=int(metadata[b"start"]),
                endpoint=metadata[b"endpoint"].decode(),
                source=metadata[b"source"].decode(),
                salt=metadata[b"salt"].decode(),
                files=tuple(map(tuple, orjson.loads(metadata.get(b"files", b"[]")))),
            )
        except (pa.ArrowException, LookupError, TypeError, ValueError) as error:
            raise BrokenPlan from error
        self.origins = Origins(self.header.files)
        self._params: dict[str, SamplingParams] = {}
        self._lists = {name: self._list_column(name) for name in ("lengths", "texts")}

    def rows(self, a: int, b: int) -> Iterator[PlanRow]:
        """The lines at plan positions ``[a, b)``, in the plan's order.

        Raises:
            BrokenPlan: it does not hold them all.
        """
        first = a - self.header.start
        if first < 0 or first + b - a > self._batch.num_rows:
            raise BrokenPlan
        rows = self._batch.slice(first, b - a)
        lines, ids, leaders, problems = (
            rows.column(name).to_pylist() for name in ("line", "custom_id", "leader", "problem")
        )
        for line, custom_id, leader, problem in zip(lines, ids, leaders, problems, strict=True):
            yield PlanRow(line, custom_id, leader, _problem(line, custom_id, problem))

    def prompts(self, position: int) -> list[tuple[int, ...]]:
        """Token ids of each prompt of the leader at a plan position."""
        ids = tuple(self._batch.column("tokens")[position - self.header.start].as_py())
        lengths = self._list_of("lengths", position)
        return split(ids, lengths) if lengths else [ids]

    def num_prompts(self, position: int) -> int:
        """How many prompts the leader at a plan position has."""
        return len(self._list_of("lengths", position)) or 1

    def texts(self, position: int) -> list[str]:
        """Each prompt's text, where the leader's response begins with it; else empty."""
        return self._list_of("texts", position)

    def _list_column(self, name: str) -> Any:
        """A column of lists; ``None`` where all are empty, or the file is of an earlier version."""
        if name not in self._batch.schema.names:
            return None
        column = self._batch.column(name)
        return column if len(column.flatten()) else None

    def _list_of(self, name: str, position: int) -> list[Any]:
        column = self._lists[name]
        if column is None:
            return []
        found: list[Any] = column[position - self.header.start].as_py()
        return found

    def params(self, position: int) -> SamplingParams:
        """Sampling parameters of the row at a plan position; one object for all that are equal."""
        packed = self._batch.column("params")[position - self.header.start].as_py()
        if packed not in self._params:
            self._params[packed] = unpack_params(packed)
        return self._params[packed]


def _problem(line: int, custom_id: str | None, packed: str | None) -> Problem | None:
    if packed is None:
        return None
    code, message, param = orjson.loads(packed)
    return Problem(line, code, message, param, custom_id)
