"""What a run does before and after its own job."""

import io
from pathlib import Path

from rich.console import Console

from api.schemas.batch_create import MAX_WINDOW_SECONDS, parse_window
from storage.datasets.readers.kinds import open_source
from storage.datasets.values.sources import Kind
from tidemill.client import Client, Upload
from tidemill.client.shapes import Batch
from tidemill.run.jobs import LONGEST_WINDOW, RUN_MARK, cancel_left_over, how_to_fetch
from tidemill.run.progress import reporter
from tidemill.run.session import Session
from tidemill.run.targets import plan_target


def test_what_a_killed_run_left_is_cancelled_and_said_so(client: Client) -> None:
    file = client.upload(Upload("in.jsonl", lambda: [b"{}\n"]))
    left, kept = (
        client.create_batch(file.id, "/v1/chat/completions", metadata={"input": "x", **mark})
        for mark in (RUN_MARK, {})
    )
    said = io.StringIO()
    with reporter(Console(file=said), quiet=True) as quiet:
        cancel_left_over(client, quiet)
        assert client.batch(left.id).status == "cancelling"
        assert client.batch(kept.id).status == "validating"
        cancel_left_over(client, quiet)
    assert said.getvalue().count(left.id) == 1
    assert kept.id not in said.getvalue()


def test_a_run_asks_for_the_longest_window_there_is() -> None:
    assert parse_window(LONGEST_WINDOW) == MAX_WINDOW_SECONDS


def test_how_to_fetch_says_what_the_input_was_read_as(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"prompt": "Why?"}\n')
    source = open_source(tmp_path / "in.jsonl", kind=Kind.TEXT)
    target = plan_target(source.path, source.kind)
    batch = Batch("batch_x", "completed", "/v1/chat/completions", "file-x", 0)
    assert "--input-format text" in how_to_fetch(Session(client, Path("/a")), batch, source, target)


def test_how_to_fetch_is_a_command_for_this_very_job(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "in put.txt"
    path.write_text("Why?\n")
    file = client.upload(Upload("in.jsonl", lambda: [b"{}\n"]))
    batch = client.create_batch(file.id, "/v1/chat/completions")
    source = open_source(path)
    target = plan_target(path, source.kind, answer_column="reply")
    fetch = (
        f"tidemill fetch {batch.id} --home /a --format plain --join '{path}' "
        "--answer-column reply -o FILE"
    )
    assert how_to_fetch(Session(client, Path("/a")), batch, source, target) == fetch
    own = how_to_fetch(Session(client, Path("/a"), own=True), batch, source, target)
    assert own == f"tidemill up --home /a, and beside it {fetch}"
