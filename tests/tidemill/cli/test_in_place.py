"""``submit`` of tables whose rows the service turns into requests: where they lie, or uploaded."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.sources import Kind
from tidemill.client import Client
from tidemill.errors import UsageError
from tidemill.run.uploads import Table

Command = Callable[..., Any]


@pytest.fixture
def submit(command: Command, api_url: str) -> Command:
    return lambda *words: command("submit", *words, "--url", api_url, "--api-key", "secret")


def test_a_uri_is_read_by_the_service(submit: Command, lake: Path, client: Client) -> None:
    (lake / "a.csv").write_text("id,text\n1,x\n")
    uri = f"{lake.as_uri()}/*.csv"
    done = submit(uri, "--template", "On {{ text }}", "--key", "id", "--max-tokens", "5", "--json")
    assert done.code == 0, done.err
    batch = printed(done.out)
    assert batch["metadata"] == {"input": uri}
    with client.download(batch["input_file_id"]) as pieces:
        header, file = map(orjson.loads, b"".join(pieces).splitlines())
    assert (header["input_uri"], file["uri"]) == ([uri], f"{lake.as_uri()}/a.csv")
    refused = submit("s3://bucket/a.csv", "--column", "text")
    assert refused.code == 1
    assert "TIDEMILL_DATASET_URIS" in refused.err


def test_with_a_key_a_file_is_uploaded_as_it_is(submit: Command, client: Client) -> None:
    Path("t.csv").write_text("id,text\n1,x\n")
    done = submit("t.csv", "--template", "On {{ text }}", "--key", "id", "--json")
    assert done.code == 0, done.err
    with client.download(printed(done.out)["input_file_id"]) as pieces:
        assert b"".join(pieces) == b"id,text\n1,x\n"
    missing = submit("nothing.csv", "--key", "id")
    assert (missing.code, "is no file" in missing.err) == (1, True)


def test_results_are_written_elsewhere_too(submit: Command, command: Command, lake: Path) -> None:
    (lake / "a.csv").write_text("id,text\n1,x\n")
    place = f"{lake.as_uri()}/out/"
    words = ("--template", "On {{ text }}", "--key", "id", "--output-uri", place)
    done = submit(
        f"{lake.as_uri()}/a.csv", *words, "--passthrough", "*", "--format", "jsonl", "--json"
    )
    assert done.code == 0, done.err
    written = printed(done.out)["tidemill"]["output"]
    assert (written["uri"], written["format"], written["shards_written"]) == (place, "jsonl", 0)
    again = submit(f"{lake.as_uri()}/a.csv", *words)
    assert (again.code, "give each batch a folder" in again.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("a.jsonl", "--format", "jsonl"), "--output-uri"),
        (("a.jsonl", "--passthrough", "x"), "--output-uri"),
        (("a.jsonl", "--output-uri", "s3://b/x", "--passthrough", "x"), "give --key"),
        (("a.jsonl", "b.jsonl", "--output-uri", "s3://b/x"), "place of its own"),
    ],
)
def test_options_of_an_output_go_together(
    submit: Command, words: tuple[str, ...], message: str
) -> None:
    refused = submit(*words)
    assert (refused.code, message in refused.err) == (2, True)


def printed(out: str) -> Any:
    """The JSON that a command printed; the API, in this process, may log beside it."""
    return orjson.loads(out[out.index("{") : out.rindex("}") + 1])


USER = {"role": "user", "content": "{{ x }}"}
SYSTEM = {"role": "system", "content": "S"}


@pytest.mark.parametrize(
    ("spec", "request_options", "sent"),
    [
        ("{{ x }}", RequestOptions(), "{{ x }}"),
        ([USER], RequestOptions(), [USER]),
        ("{{ x }}", RequestOptions("m"), {"prompt": "{{ x }}", "model": "m"}),
        ("{{ x }}", RequestOptions(system="S"), {"messages": [SYSTEM, USER]}),
        ([SYSTEM, USER], RequestOptions(system="T"), {"messages": [SYSTEM, USER]}),
        (
            {"body": {"messages": [USER], "seed": 1, "model": "a"}},
            RequestOptions("b", sampling={"seed": 2}),
            {"messages": [USER], "seed": 2, "model": "b"},
        ),
    ],
)
def test_other_options_come_before_what_the_template_says(
    spec: Any, request_options: RequestOptions, sent: Any
) -> None:
    table = Table.of("s3://b/t", request_options, spec, key=None, column=None, kind=Kind.CSV)
    assert table.options == {"template": sent, "input_format": Kind.CSV}


@pytest.mark.parametrize("given", [RequestOptions("m"), RequestOptions(system="S")])
def test_options_that_would_go_nowhere_are_refused(given: RequestOptions) -> None:
    with pytest.raises(UsageError, match="--template"):
        Table.of("s3://b/t", given, None, key="id", column=None, kind=None)
