"""Columns of several files that are passed through: one type holds them all, or it is told."""

import io
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.outputs.passthrough import PARAM, Passthrough
from storage.errors import OutputError


def passed(folder: Any, columns: Sequence[pa.Array]) -> list[Any]:
    """The values of the column ``x``, of which each file has one."""
    for number, column in enumerate(columns):
        sink = io.BytesIO()
        pq.write_table(pa.table({"x": column, "text": ["w"]}), sink)
        folder.put(f"{number}.parquet", sink.getvalue())
    dataset = folder.dataset("*", template={"prompt": "{{ text }}"})
    batches = Passthrough.of(dataset, ("x",)).batches()
    return [value for batch in batches for value in batch["x"].to_pylist()]


@pytest.mark.parametrize(
    "columns",
    [
        (pa.array([2**60 + 1]), pa.array([1.5])),
        (pa.array([{"deep": 2**60 + 1}]), pa.array([{"deep": 1.5}])),
        (pa.array([5 * 10**10], pa.timestamp("s")), pa.array([1], pa.timestamp("ns"))),
        (pa.array([1]), pa.array([2**63], pa.uint64())),
    ],
)
def test_a_value_that_has_no_place_in_the_common_type_is_told(
    folder: Any, columns: Sequence[pa.Array]
) -> None:
    with pytest.raises(OutputError, match=r"column 'x' is of type .* or leave it out") as caught:
        passed(folder, columns)
    assert (caught.value.code, caught.value.param) == ("invalid_output", PARAM)


def test_files_of_several_types_have_one_that_holds_them(folder: Any) -> None:
    columns = (pa.array([1], pa.int32()), pa.array([2.5]), pa.array([None], pa.int8()))
    assert passed(folder, columns) == [1.0, 2.5, None]
