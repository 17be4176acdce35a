"""Tables of every kind: rows made into requests by a template, and joined to their results."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.datasets.joining import join_rows
from storage.datasets.request_lines import RequestOptions, request_lines
from storage.datasets.templates.row_template import RowTemplate, Spec
from storage.datasets.templates.tables import MOST_NAMES, column_names, open_joined, open_rows
from storage.datasets.values.sources import Kind, Source
from storage.datasets.values.unsendable import problem_of
from storage.errors import InputNotUnderstood, TemplateError

ROWS: list[dict[str, Any]] = [
    {"id": 1, "body": "the sea", "tags": "a,b"},
    {"id": 2, "body": 'the "sky"', "tags": None},
]
SPEC: Spec = [{"role": "user", "content": "{{ id }}: {{ body }} {{ tags|default('-') }}"}]


def as_lines(path: Path) -> None:
    path.write_bytes(b"\n".join(map(msgspec.json.encode, ROWS)) + b"\n")


def as_csv(path: Path) -> None:
    path.write_text('id;body;tags\n1;the sea;a,b\n2;"the ""sky""";-\n')


def as_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


def as_gzip(path: Path) -> None:
    as_lines(path)
    path.write_bytes(gzip.compress(path.read_bytes()))


WRITERS = {"in.jsonl": as_lines, "in.csv": as_csv, "in.parquet": as_parquet, "in.gz": as_gzip}


@pytest.fixture(params=WRITERS)
def table(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    write: Callable[[Path], None] = WRITERS[request.param]
    write(path)
    return path


def requests(source: Source, template: RowTemplate, **options: Any) -> list[dict[str, Any]]:
    lines = b"".join(request_lines(source, RequestOptions(template=template, **options)))
    return [msgspec.json.decode(line) for line in lines.splitlines() if line]


def test_every_kind_of_table_gives_the_same_messages(table: Path) -> None:
    template = RowTemplate.parse(SPEC)
    made = requests(open_rows(table, template), template)
    contents = [each["body"]["messages"][0]["content"] for each in made]
    assert contents == ["1: the sea a,b", '2: the "sky" -']


def test_the_rows_are_joined_to_their_results_whole(table: Path) -> None:
    template = RowTemplate.parse("{{ body }}")
    for source in (open_rows(table, template), open_joined(table)):
        ids = [each["custom_id"] for each in requests(open_rows(table, template), template)]
        results = [
            msgspec.json.encode(
                {
                    "custom_id": custom_id,
                    "response": {
                        "status_code": 200,
                        "body": {"choices": [{"message": {"content": f"of {custom_id}"}}]},
                    },
                }
            )
            for custom_id in ids
        ]
        records = list(join_rows(source, [b"\n".join(results)], [], rows=2))
        assert [record.result.text for record in records] == [f"of {each}" for each in ids]
        assert [record.fields["body"] for record in records] == [row["body"] for row in ROWS]
        assert all(record.fields.keys() == ROWS[0].keys() for record in records)


def test_a_column_that_is_not_there_is_said_before_anything_else(table: Path) -> None:
    with pytest.raises(TemplateError, match=r"'bodi'\. Did you mean 'body'\? The columns are 'id'"):
        open_rows(table, RowTemplate.parse("{{ bodi }}"))


def test_options_come_before_what_the_template_says(tmp_path: Path) -> None:
    as_lines(tmp_path / "in.jsonl")
    template = RowTemplate.parse({"model": "m", "prompt": "{{ body }}", "max_tokens": 3, "n": 2})
    source = open_rows(tmp_path / "in.jsonl", template)
    body = requests(source, template, model="big", system="Brief.", sampling={"n": 1})[0]["body"]
    assert body == {
        "model": "big",
        "messages": [
            {"role": "system", "content": "Brief."},
            {"role": "user", "content": "the sea"},
        ],
        "max_tokens": 3,
        "n": 1,
    }
    assert template.names_model


def test_a_system_message_of_the_template_stays(tmp_path: Path) -> None:
    as_lines(tmp_path / "in.jsonl")
    template = RowTemplate.parse([{"role": "system", "content": "Of {{ body }}"}])
    source = open_rows(tmp_path / "in.jsonl", template)
    assert requests(source, template, system="Brief.")[0]["body"]["messages"] == [
        {"role": "system", "content": "Of the sea"}
    ]


def test_a_row_that_cannot_be_rendered_keeps_its_place(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"n": 1}\n\n{"n": 0}\n{broken\n{"n": 4}\n')
    template = RowTemplate.parse("{{ 8 // n }}.")
    source = open_rows(tmp_path / "in.jsonl", template)
    lines = b"".join(request_lines(source, RequestOptions(template=template))).split(b"\n")
    assert (lines[1], lines[3]) == (b"", b"{broken")
    good, bad, last = (msgspec.json.decode(lines[at]) for at in (0, 2, 4))
    assert good["body"]["messages"][0]["content"] == "8."
    assert last["custom_id"] == "line-5"
    assert "divided by zero" in (problem_of(bad) or "")
    assert "messages" not in bad["body"]


def test_lines_of_text_have_one_column(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("the sea\nthe sky\n")
    template = RowTemplate.parse("On {{ prompt }}")
    made = requests(open_rows(tmp_path / "in.txt", template), template)
    assert made[1]["body"]["messages"][0]["content"] == "On the sky"


def test_a_field_of_late_lines_is_a_column(tmp_path: Path) -> None:
    lines = [b'{"a%d": 1}' % n for n in range(MOST_NAMES + 5)]
    (tmp_path / "in.jsonl").write_bytes(b"\n".join([*lines, b'{"late": 2}']))
    source = open_rows(tmp_path / "in.jsonl", RowTemplate.parse("{{ late }}"))
    assert source.kind is Kind.JSONL
    assert len(column_names(source, ["nowhere"])) == MOST_NAMES


def test_what_a_file_is_read_as_is_said_with_the_columns(tmp_path: Path) -> None:
    as_csv(tmp_path / "in.csv")
    source = open_rows(tmp_path / "in.csv", RowTemplate.parse("{{ tags }}{{ body }}"))
    assert source.described == "Reading in.csv as CSV: by its name, columns 'body', 'tags'"


def test_what_cannot_be_joined_is_told_as_ever(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text('{\n "a": 1\n}\n')
    with pytest.raises(InputNotUnderstood, match="is one JSON document"):
        open_joined(tmp_path / "in.json")
    as_csv(tmp_path / "in.csv")
    with pytest.raises(InputNotUnderstood, match="no column 'nowhere'"):
        open_joined(tmp_path / "in.csv", column="nowhere")
