"""Pause, resume, retry and cancel, by command and client, on a whole service in one process.

The lines that run are refused by the planner one by one, so no engine is needed to end a batch.
"""

import io
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from storage.settings import Settings
from tidemill.client import Client, Upload
from tidemill.client.shapes import Batch
from tidemill.errors import ApiError, StartFailed
from tidemill.run.jobs import RUN_MARK, cancel_left_over, follow
from tidemill.run.progress import PlainReporter, reporter
from tidemill.run.session import Session
from tidemill.serve.service import Service

pytestmark = pytest.mark.slow

CHAT = "/v1/chat/completions"
Run = Callable[..., subprocess.CompletedProcess[str]]
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A whole service that ticks so seldom that only wake-ups can be what makes it act."""
    settings = Settings.load(
        home=tmp_path_factory.mktemp("home"), port=0, reconcile_seconds=3600, env_file=None
    )
    with Service(settings, announce=False) as service:
        yield service.url


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture
def tidemill(tmp_path: Path, url: str) -> Run:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")}
    environment |= {"TIDEMILL_URL": url, "TIDEMILL_HOME": str(tmp_path / "home")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tidemill.cli.main", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def line(custom_id: str, **body: Any) -> bytes:
    messages = [{"role": "user", "content": "Hello"}]
    request = {"messages": messages, "max_tokens": 2, **body}
    return orjson.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": request})


def create(client: Client, *lines: bytes, **more: Any) -> Batch:
    file = client.upload(Upload("in.jsonl", lambda: [b"\n".join(lines)]))
    return client.create_batch(file.id, CHAT, **more)


def finished(client: Client, batch_id: str) -> Batch:
    *_, last = client.watch(batch_id)
    return last


def refused(client: Client, count: int, **more: Any) -> Batch:
    """A batch that has completed, every line of it with an error."""
    lines = [line(f"row{number}", temperature=9) for number in range(count)]
    return finished(client, create(client, *lines, **more).id)


def test_failed_lines_run_again(client: Client, tidemill: Run) -> None:
    first = refused(client, 3, metadata={"job": "nightly"})
    assert (first.status, first.request_counts.failed) == ("completed", 3)
    done = tidemill("retry", first.id)
    assert done.returncode == 0, done.stderr
    second = finished(client, done.stdout.strip())
    assert second.id != first.id
    assert (second.status, second.request_counts.failed) == ("completed", 3)
    assert (second.retry_of, second.metadata) == (first.id, {"job": "nightly"})
    shown = tidemill("status", second.id).stdout
    assert f"retry of\t{first.id}" in shown
    for batch in (first, second):
        assert batch.error_file_id is not None
        with client.download(batch.error_file_id) as pieces:
            rows = [orjson.loads(row) for row in b"".join(pieces).splitlines()]
        assert [row["custom_id"] for row in rows] == ["row0", "row1", "row2"]


@pytest.mark.parametrize("told", [(), ("--input-format", "text"), ("--column", "prompt")])
def test_results_that_cannot_be_written_can_be_fetched_by_the_command_that_is_said(
    client: Client, command: Command, tmp_path: Path, told: tuple[str, ...]
) -> None:
    batch = finished(client, create(client, line("line-1", temperature=9)).id)
    path = tmp_path / "in.jsonl"
    path.write_text('{"prompt": "Why?"}')
    words = ["fetch", batch.id, "--format", "parquet", "--join", str(path), *told]
    words += ["--url", client.url]
    done = command(*words, "--output", "/dev/full")
    assert done.code == 1
    said = shlex.split(done.err.split("To fetch them: tidemill ")[1])
    assert [word for word in words if word not in said] == []
    again = tmp_path / "out.parquet"
    done = command(*(str(again) if word == "/dev/full" else word for word in said))
    assert done.code == 3, done.err
    (row,) = pq.read_table(again).to_pylist()
    assert row["prompt"] == (path.read_text() if "text" in told else "Why?")
    assert "temperature" in row["error"]


def test_a_retry_on_other_terms(client: Client, tidemill: Run) -> None:
    first = refused(client, 1)
    done = tidemill("retry", first.id, "--window", "7d", "--priority", "5", "--json")
    made = orjson.loads(done.stdout)
    assert (made["completion_window"], made["tidemill"]["retry_of"]) == ("7d", first.id)
    by_client = client.retry(first.id, completion_window="2h", metadata={"a": "b"}, priority=-1)
    assert (by_client.completion_window, by_client.metadata) == ("2h", {"a": "b"})


def test_what_cannot_be_retried(client: Client, tidemill: Run) -> None:
    failed = finished(client, create(client, b"{").id)
    with pytest.raises(ApiError) as caught:
        client.retry(failed.id)
    assert caught.value.code == "batch_not_retryable"
    done = tidemill("retry", failed.id)
    assert (done.returncode, done.stdout) == (1, "")
    assert "with status 'failed'" in done.stderr


def test_a_cancelled_batch_ends_at_once(client: Client) -> None:
    """Nothing but the wake-up can be what ends it: the next tick is an hour away."""
    batch = create(client, *(line(f"row{number}", temperature=9) for number in range(5_000)))
    client.pause(batch.id)
    planned = next(seen for seen in client.watch(batch.id) if seen.status != "validating")
    assert (planned.status, planned.paused) == ("in_progress", True)
    client.cancel(batch.id)
    started = time.monotonic()
    ended = finished(client, batch.id)
    assert time.monotonic() - started < 10
    assert (ended.status, ended.request_counts.failed) == ("cancelled", 5_000)


def test_a_batch_that_ends_before_it_can_be_cancelled_has_its_results(client: Client) -> None:
    def ending(error: BaseException) -> tuple[Batch, Callable[[object], None]]:
        """A batch, and what raises the error as soon as the batch has ended."""
        batch = create(client, *(line(f"row{number}", temperature=9) for number in range(500)))
        client.pause(batch.id)

        def end(_: object) -> None:
            client.resume(batch.id)
            assert finished(client, batch.id).status == "completed"
            raise error

        return batch, end

    quiet = reporter(Console(file=io.StringIO()), quiet=True)
    batch, end = ending(KeyboardInterrupt())
    followed = follow(Session(client, Path("/a"), pause=end), batch, quiet)
    assert (followed.batch.status, followed.interrupted) == ("completed", True)
    assert followed.batch.request_counts.failed == 500
    batch, end = ending(StartFailed("no engine"))
    with pytest.raises(StartFailed, match="no engine"):
        follow(Session(client, Path("/a"), check=end), batch, quiet)


@pytest.mark.parametrize(
    ("own", "quiet", "shortest"), [(True, True, 30.0), (True, False, 5.0), (False, True, 0.05)]
)
def test_a_run_looks_at_its_batch_no_more_often_than_it_has_something_to_show(
    client: Client, own: bool, quiet: bool, shortest: float
) -> None:
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            client.resume(batch.id)
        time.sleep(0.05)

    batch = client.pause(create(client, *(line(f"row{n}", temperature=9) for n in range(9))).id)
    session = Session(client, Path("/a"), own=own, pause=pause)
    followed = follow(session, batch, reporter(Console(file=io.StringIO()), quiet=quiet))
    assert followed.batch.status == "completed"
    assert min(waits) == shortest


def test_a_retry_of_a_run_is_no_left_over(client: Client) -> None:
    first = refused(client, 5_000, metadata=RUN_MARK)
    again = client.pause(client.retry(first.id).id)
    assert again.metadata == RUN_MARK
    cancel_left_over(client, PlainReporter(Console(file=io.StringIO())))
    assert client.resume(again.id).status in ("validating", "in_progress")
    assert finished(client, again.id).status == "completed"


def test_a_resumed_batch_goes_on_at_once(client: Client) -> None:
    batch = create(client, *(line(f"row{number}", temperature=9) for number in range(5_000)))
    client.pause(batch.id)
    assert next(seen for seen in client.watch(batch.id) if seen.status != "validating").paused
    client.resume(batch.id)
    assert finished(client, batch.id).status == "completed"


def test_pause_and_resume_by_command(api_url: str, tidemill: Run) -> None:
    reach = ("--url", api_url, "--api-key", "secret")
    with Client(api_url, "secret") as client:
        batch = create(client, line("a"))
        done = tidemill("pause", batch.id, *reach)
        assert (done.returncode, done.stdout) == (0, "paused\n")
        assert "validating, paused" in tidemill("status", batch.id, *reach).stdout
        shown = orjson.loads(tidemill("pause", batch.id, "--json", *reach).stdout)
        assert shown["tidemill"]["paused"] is True
        said = io.StringIO()
        PlainReporter(Console(file=said)).update(client.batch(batch.id))
        assert said.getvalue() == "Paused\n"
        done = tidemill("resume", batch.id, *reach)
        assert (done.returncode, done.stdout) == (0, "validating\n")
        assert not client.batch(batch.id).paused
        client.cancel(batch.id)
        for command in ("pause", "resume"):
            done = tidemill(command, batch.id, *reach)
            assert done.returncode == 1
            assert f"Cannot {command} a batch with status 'cancelling'" in done.stderr
