"""What a run does before and after its own job."""

import gzip
import io
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from columns.results import answered
from msgspec import structs
from rich.console import Console

from api.schemas.batch_create import MAX_WINDOW_SECONDS, parse_window
from storage.datasets.readers.kinds import open_source
from storage.datasets.request_lines import RequestOptions
from storage.datasets.values.sources import Kind
from tidemill.client import Client, Upload
from tidemill.client.shapes import Batch, BatchExtension
from tidemill.errors import (
    ApiError,
    ClientError,
    InputChanged,
    InputError,
    Interrupted,
    ResultsNotWritten,
    ServiceUnreachable,
    TidemillError,
)
from tidemill.exits import ExitCode
from tidemill.run.identity import DIGEST_KEY, check_input, sent_unchanged
from tidemill.run.jobs import (
    LONGEST_WINDOW,
    RUN_MARK,
    Order,
    cancel_left_over,
    how_to_fetch,
    run_whole,
)
from tidemill.run.progress import reporter
from tidemill.run.session import Session, renew_seconds
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
        f"tidemill fetch {batch.id} --format plain --join '{path}' "
        "--answer-column reply --home /a -o FILE"
    )
    assert how_to_fetch(Session(client, Path("/a")), batch, source, target) == fetch
    streamed = plan_target(path, source.kind, output=Path("-"))
    said = how_to_fetch(Session(client, Path("/a")), batch, source, streamed)
    assert said.endswith(f"--errors '{tmp_path / 'in put.errors.jsonl'}' --home /a")
    own = how_to_fetch(Session(client, Path("/a"), own=True), batch, source, target)
    assert own == f"tidemill up --home /a, and beside it {fetch}"


class Finished(Client):
    """A client of the live API that finds every batch finished, with one answer.

    Something may happen before its results are written, or while they are read.
    """

    before: Callable[[], object] = staticmethod(lambda: None)
    meanwhile: Callable[[], object] = staticmethod(lambda: None)

    def watch(self, batch_id: str, pause: Callable[[float], None] = time.sleep) -> Iterator[Batch]:
        yield structs.replace(self.batch(batch_id), status="completed", output_file_id="file-x")
        self.before()

    def download(self, file_id: str) -> AbstractContextManager[Iterator[bytes]]:
        self.meanwhile()
        return nullcontext(iter([answered("line-1", "A")]))


def failing(path: Path, client: Finished) -> TidemillError:
    """How a run of ``path`` ends that cannot write ``out/x.jsonl``."""
    source = open_source(path)
    target = plan_target(path, source.kind, output=path.parent / "out" / "x.jsonl")
    order = Order.of(source, RequestOptions())
    with client, reporter(Console(), quiet=True) as quiet:
        session = Session(client, path.parent / "home")
        with pytest.raises((ResultsNotWritten, Interrupted)) as caught:
            run_whole(session, source, order, target, quiet)
    return caught.value


@pytest.mark.parametrize(
    ("when", "what", "said", "joined"),
    [
        ("before", "rmdir", "cannot be written: No such file or directory", True),
        ("before", "change", "is not the file that batch_", False),
        ("before", "unlink", "in.txt cannot be read: No such file or directory", False),
        ("meanwhile", "interrupt", "Interrupted while the results were written.", True),
        ("meanwhile", "hang up", "Nobody reads standard output any more.", True),
        ("meanwhile", "run out", "cannot be written: MemoryError", True),
    ],
)
def test_a_run_that_cannot_write_its_results_says_how_to_fetch_them(
    api_url: str, tmp_path: Path, when: str, what: str, said: str, *, joined: bool
) -> None:
    def fail(error: BaseException) -> None:
        raise error

    (tmp_path / "out").mkdir()
    path = tmp_path / "in.txt"
    path.write_text("Why?\n")
    happens = {
        "rmdir": lambda: (tmp_path / "out").rmdir(),
        "change": lambda: path.write_text("How?\nWhy?\n"),
        "unlink": path.unlink,
        "interrupt": lambda: fail(KeyboardInterrupt()),
        "hang up": lambda: fail(BrokenPipeError(32, "Broken pipe")),
        "run out": lambda: fail(MemoryError()),
    }
    client = Finished(api_url, "secret")
    setattr(client, when, happens[what])
    error = failing(path, client)
    first, second = str(error).splitlines()
    assert said in first
    assert second.startswith("The results are kept. To fetch them: tidemill fetch batch_")
    assert (f"--join {path}" in second) == joined
    assert second.endswith("-o FILE")
    interrupted = what == "interrupt"
    assert error.exit_code == (ExitCode.INTERRUPTED if interrupted else ExitCode.FAILURE)
    assert not (tmp_path / "out" / "x.jsonl").exists()


@pytest.mark.parametrize(
    "error",
    [ServiceUnreachable("Nobody answers."), ApiError("Try later.", status=503), ClientError("?")],
)
def test_a_run_whose_service_goes_away_says_how_to_fetch_its_results(
    api_url: str, tmp_path: Path, error: ClientError
) -> None:
    def go_away() -> None:
        raise error

    (tmp_path / "out").mkdir()
    path = tmp_path / "in.txt"
    path.write_text("Why?\n")
    client = Finished(api_url, "secret")
    client.before = go_away
    said = str(failing(path, client))
    assert said.startswith(f"{error}\nbatch_")
    assert "once it has ended: tidemill fetch batch_" in said
    assert f"--join {path}" in said


def test_a_batch_knows_its_input_again_and_no_other(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("Why?\n")
    source = open_source(path)
    with sent_unchanged(source) as identity:
        pass
    file = client.upload(Upload("in.jsonl", lambda: [b"{}\n"]))
    batch = client.create_batch(file.id, "/v1/chat/completions", metadata=identity)
    check_input(client, batch, source)
    zipped = tmp_path / "in.txt.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    check_input(client, batch, open_source(zipped))
    path.write_text("Why not?\n")
    with pytest.raises(InputChanged, match=rf"in.txt is not the file that {batch.id} was made of"):
        check_input(client, batch, source)
    again = structs.replace(batch, metadata=None, tidemill=BatchExtension(retry_of=batch.id))
    with pytest.raises(InputChanged):
        check_input(client, again, source)
    gone = structs.replace(batch, metadata=None, tidemill=BatchExtension(retry_of="batch_gone"))
    check_input(client, gone, source)


def test_an_input_that_changes_while_it_is_sent_starts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "in.txt"
    path.write_text("Why?\n")
    sending = sent_unchanged(open_source(path))
    assert len(sending.__enter__()[DIGEST_KEY]) == 64
    path.write_text("Why?\nHow?\n")
    with pytest.raises(InputError, match=r"in\.txt changed while it was sent, so nothing was star"):
        sending.__exit__(None, None, None)


@pytest.mark.parametrize(("shown_every", "renewed"), [(0.0, None), (5.0, 5.0), (30.0, 10.0)])
def test_progress_is_noted_no_more_often_than_it_is_shown(
    shown_every: float, renewed: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TIDEMILL_RENEW_SECONDS", raising=False)
    assert renew_seconds(shown_every) == renewed
    monkeypatch.setenv("TIDEMILL_RENEW_SECONDS", "3")
    assert renew_seconds(shown_every) is None
