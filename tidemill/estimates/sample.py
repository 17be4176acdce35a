"""Some rows of an input, spread evenly over it, to be run really."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from random import Random

from storage.datasets.readers.unpacked import open_unpacked
from storage.datasets.request_lines import RequestOptions, request_lines
from storage.datasets.values.sources import Kind, Source
from storage.streams.jsonl import read_lines
from tidemill.client.uploads import Upload
from tidemill.errors import UsageError
from tidemill.run.dataset_errors import dataset_errors


def sample_of(source: Source, options: RequestOptions, count: int, seed: int = 0) -> Upload:
    """An upload of ``count`` rows: one of each of so many equal stretches of the input.

    Args:
        seed: which of each stretch; the same seed gives the same rows.

    Raises:
        UsageError: the input has fewer rows.
        InputError: it cannot be read.
    """
    with dataset_errors():
        total = sum(1 for _ in _rows(source, options))
    if count > total:
        raise UsageError(
            f"--sample: {source.name} has {total:,} {'row' if total == 1 else 'rows'}; "
            f"{count:,} cannot be taken of them."
        )
    chosen = _Chosen(count, total, seed)

    def chunks() -> Iterator[bytes]:
        with dataset_errors():
            places = chosen.places()
            for number, row in enumerate(_rows(source, options)):
                if number in places:
                    yield row + b"\n"

    return Upload(f"{source.name}.sample.jsonl", chunks)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """So many places of so many, by a seed."""

    count: int
    total: int
    seed: int

    def places(self) -> set[int]:
        draw = Random(self.seed)
        ends = [number * self.total // self.count for number in range(self.count + 1)]
        return {draw.randrange(low, high) for low, high in pairwise(ends)}


def _rows(source: Source, options: RequestOptions) -> Iterator[bytes]:
    """Every row as a line of the batch's input, without its newline."""
    if source.kind is not Kind.REQUESTS:
        for line in request_lines(source, options):
            if row := line.strip(b"\n"):
                yield row
        return
    limits = source.limits
    with open_unpacked(source.file, source.name, limits) as stream:
        for found in read_lines(stream, max_line_bytes=limits.max_line_bytes):
            yield found.data
