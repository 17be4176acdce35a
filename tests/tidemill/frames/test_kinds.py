"""Frames as Arrow tables, and with texts beside their rows."""

import datetime
from typing import Any

import pandas
import polars
import pyarrow as pa
import pytest

from tidemill.errors import InputError
from tidemill.frames.kinds import to_table, with_columns

ROWS: list[dict[str, Any]] = [
    {"id": 7, "body": "first"},
    {"id": 8, "body": None},
    {"id": 9, "body": "third"},
]
ANSWERS: dict[str, list[str | None]] = {"answer": ["a", None, "c"], "error": [None, "why", None]}


def frames() -> list[Any]:
    return [ROWS, pa.Table.from_pylist(ROWS), polars.DataFrame(ROWS), pandas.DataFrame(ROWS)]


@pytest.mark.parametrize("data", frames(), ids=["list", "arrow", "polars", "pandas"])
def test_a_frame_is_read_and_comes_back_in_its_own_kind(data: Any) -> None:
    assert to_table(data).to_pylist() == ROWS
    answered = with_columns(data, ANSWERS)
    assert type(answered) is type(data)
    assert to_table(answered).to_pylist() == [
        {**row, "answer": ANSWERS["answer"][at], "error": ANSWERS["error"][at]}
        for at, row in enumerate(ROWS)
    ]
    assert to_table(data).to_pylist() == ROWS, "the frame that was given has changed"


@pytest.mark.parametrize(
    ("rows", "names"),
    [
        ([{"id": 7}, {"id": 8, "body": "x"}, {"note": 1.5}], ["id", "body", "note"]),
        ([{}, {"id": 7}], ["id"]),
        ([], []),
    ],
)
def test_a_list_has_the_columns_of_all_its_rows(
    rows: list[dict[str, Any]], names: list[str]
) -> None:
    table = to_table(rows)
    assert table.column_names == names
    assert table.to_pylist() == [{name: row.get(name) for name in names} for row in rows]


def test_an_index_of_pandas_stays() -> None:
    frame = pandas.DataFrame({"body": ["x", "y", "z"]}, index=[30, 10, 10])
    answered = with_columns(frame, ANSWERS)
    assert list(answered.index) == [30, 10, 10]
    assert answered["answer"].isna().tolist() == [False, True, False]
    assert answered["answer"].iloc[2] == "c"


def test_a_column_of_nothing_but_nulls_is_text() -> None:
    answered = with_columns(polars.DataFrame({"id": [1]}), {"error": [None]})
    assert answered.schema["error"] == polars.String


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("a text", "this is a str"),
        ([1, 2], "this is a list"),
        (None, "this is a NoneType"),
        (pandas.Series([1]), "this is a Series"),
        (pandas.DataFrame({0: ["x"]}), "The column 0 has a name that is no text"),
        (pandas.DataFrame({"x": [1, "mixed", datetime.date(2026, 1, 1)]}), "cannot be read"),
        ([{"x": 1}, {"x": "one"}], "cannot be read"),
        ([{"x": 1}, {1: "x"}], "The column 1 has a name that is no text"),
    ],
)
def test_what_is_no_frame_is_told(data: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        to_table(data)
