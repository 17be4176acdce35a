"""What is uploaded for an input."""

import gzip
from pathlib import Path

import orjson
import pytest

from storage.datasets.readers.kinds import open_source
from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.sources import Kind
from tidemill.client import Upload
from tidemill.client.uploads import form
from tidemill.errors import InputError, UsageError
from tidemill.run.uploads import upload_of

REQUEST = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": "m"}}


def test_whole_requests_are_sent_untouched(tmp_path: Path) -> None:
    content = b'{"custom_id":"a","method":"POST","url":"/v1/completions","body":{}}\r\n\nbad\n'
    (tmp_path / "in.jsonl").write_bytes(content)
    upload = upload_of(open_source(tmp_path / "in.jsonl"), RequestOptions())
    assert b"".join(upload.chunks()) == content
    with pytest.raises(UsageError, match="name their model"):
        upload_of(open_source(tmp_path / "in.jsonl"), RequestOptions(model="m"))


def test_gzipped_requests_are_uploaded_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    path.write_bytes(gzip.compress(orjson.dumps(REQUEST)))
    source = open_source(path)
    assert source.kind is Kind.REQUESTS
    assert b"".join(upload_of(source, RequestOptions()).chunks()) == path.read_bytes()


def test_a_name_that_is_not_utf8_is_uploaded_as_text(tmp_path: Path) -> None:
    path = Path(str(tmp_path) + "/caf\udce9.jsonl")
    path.write_bytes(orjson.dumps(REQUEST))
    assert upload_of(open_source(path), RequestOptions()).filename == "caf\ufffd.jsonl"
    assert b'filename="caf?.jsonl"' in b"".join(form("b", {}, Upload.from_path(path)))


def test_rows_are_uploaded_as_requests_line_for_line(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_bytes(b"Why?\n\nHow?\n")
    upload = upload_of(open_source(tmp_path / "in.txt"), RequestOptions())
    assert upload.filename == "in.requests.jsonl"
    for _ in range(2):
        sent = b"".join(upload.chunks()).split(b"\n")
        assert [orjson.loads(line)["custom_id"] if line else None for line in sent] == [
            *("line-1", None, "line-3", None)
        ]


def test_a_row_that_cannot_be_sent_is_an_error_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(b'{"prompt": "a", "answer": "b"}\n')
    upload = upload_of(open_source(tmp_path / "in"), RequestOptions(answer_column="answer"))
    with pytest.raises(InputError, match="line 1 has a field 'answer' already"):
        list(upload.chunks())
