"""The merge: every line once, in order, however the parts overlap."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.objects.local import LocalStore
from worker.errors import BrokenResult
from worker.finish.merge import Source, merge, most_overlapping
from worker.run.parts import PartReader, Record, encode_record


def _record(line: int) -> Record:
    return Record(line, True, msgspec.Raw(b"{}"))


def _sources(parts: list[list[int]]) -> list[Source]:
    def source(lines: list[int]) -> Source:
        return Source(lines[0], lambda: iter([_record(line) for line in lines]))

    return [source(part) for part in sorted(parts)]


@given(st.lists(st.integers(0, 5), max_size=80))
def test_any_division_of_the_lines_comes_back_in_order(owners: list[int]) -> None:
    parts: dict[int, list[int]] = {}
    for line, owner in enumerate(owners, 1):
        parts.setdefault(owner, []).append(line)
    merged = [record.line for record in merge(_sources(list(parts.values())))]
    assert merged == list(range(1, len(owners) + 1))


@pytest.mark.parametrize("parts", [[[1, 2], [2, 3]], [[1, 3, 2]], [[1], [1]]])
def test_a_line_that_comes_twice_is_an_error(parts: list[list[int]]) -> None:
    with pytest.raises(BrokenResult):
        list(merge(_sources(parts)))


def test_sources_are_opened_only_when_their_turn_comes() -> None:
    opened: list[int] = []

    def source(first: int) -> Source:
        def records() -> Iterator[Record]:
            opened.append(first)
            yield from (_record(first), _record(first + 1))

        return Source(first, records)

    merged = merge([source(1), source(3), source(5)])
    next(merged)
    assert opened == [1]
    list(merged)
    assert opened == [1, 3, 5]


def test_most_overlapping_ranges() -> None:
    assert most_overlapping([]) == 0
    assert most_overlapping([(1, 4), (2, 3), (4, 9), (10, 12)]) == 2
    assert most_overlapping([(1, 9), (2, 9), (3, 9)]) == 3


@given(
    sizes=st.lists(st.integers(0, 60), max_size=30),
    buffer_bytes=st.sampled_from([1, 7, 64, 10_000]),
)
def test_a_part_reads_back_whatever_the_buffer(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], buffer_bytes: int
) -> None:
    folder: Path = tmp_path_factory.mktemp("parts")
    data = b"".join(
        encode_record(line, line % 2 == 0, b'"%s"' % (b"x" * size))
        for line, size in enumerate(sizes, 1)
    )
    store = LocalStore(folder)
    store.put("parts/a.jsonl", data)
    digest = hashlib.sha256()
    records = list(PartReader(store, buffer_bytes).records("parts/a.jsonl", digest))
    assert [(record.line, record.ok) for record in records] == [
        (line, line % 2 == 0) for line in range(1, len(sizes) + 1)
    ]
    assert [len(bytes(record.text)) - 2 for record in records] == sizes
    assert digest.hexdigest() == hashlib.sha256(data).hexdigest()
