"""What a service, a file or a name says is never obeyed by a terminal, and forges no row."""

import io
import json
import os
import threading
import unicodedata
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from rich.console import Console

from storage.database.connection import Database
from storage.home import Home
from storage.registry import models
from tidemill.cli.main import app
from tidemill.client.shapes import Batch
from tidemill.run.progress import LiveReporter, PlainReporter, Reporter

Command = Callable[..., Any]

# Clears the screen, turns writing round, ends the line, forges a cell and a style.
HOSTILE = "\x1b[2J\x9b31m\u202eevil\nbatch_forged\tcompleted\x7f\u2028[red]"
OBEYED = ("\x1b[2j", "\x9b", "\u202e", "\nbatch_forged", "\t", "\x7f", "\u2028")
NAME = "in\x1b[2J\u202e\nforged.txt"
SERVERS = {"up", "api", "worker", "reconciler"}  # they print their address and a log
COMMANDS = (
    "status batch_1",
    "status batch_waiting",
    "watch batch_1",
    "watch batch_bad",
    "fetch batch_1 -o out --errors errors",
    "fetch batch_bad",
    "cancel batch_1",
    "pause batch_1",
    "resume batch_1",
    "retry batch_1",
    "list",
    "submit NAME",
    "run NAME",
    "estimate NAME",
)


class Service(BaseHTTPRequestHandler):
    """Answers every call, with the same text wherever text may stand."""

    seen: ClassVar[list[str]]
    refuses: ClassVar[bool]

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._body()
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _body(self) -> None:
        if self.headers.get("Transfer-Encoding") != "chunked":
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            return
        while size := int(self.rfile.readline(), 16):
            self.rfile.read(size + 2)
        self.rfile.readline()

    def _answer(self) -> None:
        self.seen.append(self.path)
        status, text = 200, self._text(self.path.partition("?")[0].removeprefix("/v1/").split("/"))
        if self.refuses:
            status, text = 400, json.dumps({"error": {"message": HOSTILE, "code": HOSTILE}})
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _text(self, parts: list[str]) -> str:
        match parts:
            case ["files", _, "content"]:
                error = {"code": HOSTILE, "message": HOSTILE, "param": HOSTILE}
                lines = [{"custom_id": HOSTILE, "error": error}] * 2
                return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
            case ["files", *_]:
                return json.dumps(hostile_file())
            case ["models"]:
                return json.dumps({"data": [{"id": HOSTILE}]})
            case ["batches"] if self.command == "GET":
                return json.dumps({"data": [hostile_batch("x")] * 2})
            case ["batches", batch_id, *_]:
                return json.dumps(hostile_batch(batch_id))
            case _:
                return json.dumps(hostile_batch("batch_new"))


def hostile_file() -> dict[str, Any]:
    return {"id": "file-1", "bytes": 1, "filename": HOSTILE, "purpose": HOSTILE, "created_at": 1}


def hostile_batch(batch_id: str) -> dict[str, Any]:
    """A batch that has failed (``batch_bad``), waits (``batch_waiting``), or is completed."""
    failed, waits = (batch_id == name for name in ("batch_bad", "batch_waiting"))
    problem = {"code": HOSTILE, "message": HOSTILE, "line": 1}
    return {
        "id": HOSTILE if batch_id == "x" else batch_id,
        "status": "failed" if failed else "validating" if waits else "completed",
        "endpoint": HOSTILE,
        "model": HOSTILE,
        "input_file_id": HOSTILE,
        "created_at": 1,
        "error_file_id": None if failed else "file-2",
        "errors": {"data": [problem]},
        "request_counts": {"total": 2, "failed": 2},
        "metadata": {HOSTILE: HOSTILE},
        "tidemill": {
            "report_file_id": HOSTILE,
            "retry_of": HOSTILE,
            "waiting_for": {"code": HOSTILE, "message": HOSTILE} if waits else None,
        },
    }


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch, command: Command) -> Iterator[type[Service]]:
    """A service that means harm, where commands find it."""

    class Here(Service):
        seen: ClassVar[list[str]] = []
        refuses = False

    with ThreadingHTTPServer(("127.0.0.1", 0), Here) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setenv("TIDEMILL_URL", f"http://127.0.0.1:{server.server_port}")
        yield Here
        server.shutdown()


def obeyed(text: str) -> set[str]:
    return {x for x in text if x != "\n" and unicodedata.category(x) in ("Cc", "Cf", "Zl", "Zp")}


def words(line: str) -> list[str]:
    return [NAME if word == "NAME" else word for word in line.split()]


@pytest.fixture(autouse=True)
def _files(command: Command, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(f'{{"prompt": "a", {json.dumps(HOSTILE)}: 1}}\n')


def test_every_command_is_tried() -> None:
    tried = {line.split()[0] for line in (*COMMANDS, "doctor")}
    assert {command.name for command in app.registered_commands} - SERVERS == tried


@pytest.mark.parametrize("line", COMMANDS)
def test_what_a_service_says_is_spelled_out(
    command: Command, hostile: type[Service], tmp_path: Path, line: str
) -> None:
    with Home.lock(tmp_path / "home") as home:
        # `run` goes to whoever serves the home folder.
        home.announce(os.environ["TIDEMILL_URL"])
        piped, shown = (command(*words(line), terminal=terminal) for terminal in (False, True))
        hostile.refuses = True
        refused = command(*words(line))
    for ended in (piped, shown, refused):
        said = ended.out + ended.err
        assert obeyed(said) <= ({"\t"} if ended is piped else set())
        assert not any(row.startswith("batch_forged") for row in said.splitlines())
        assert "Traceback" not in said
    if line.split()[0] in ("status", "watch", "list", "run"):
        assert "evil" in piped.out + piped.err
    assert (refused.code, "evil" in refused.err) == (1, True)
    assert len(refused.err.splitlines()) <= 4


@pytest.mark.parametrize("kind", [LiveReporter, PlainReporter])
def test_progress_is_spelled_out(
    monkeypatch: pytest.MonkeyPatch, kind: Callable[[Console], Reporter]
) -> None:
    """A status of the service's own, and what a batch waits for."""
    monkeypatch.setenv("TERM", "xterm")
    waiting = hostile_batch("batch_waiting")
    for batch in (waiting, hostile_batch("x") | {"status": HOSTILE, "tidemill": None}):
        shown = io.StringIO()
        console = Console(file=shown, force_terminal=True, color_system=None, width=200)
        with kind(console) as reporter:
            reporter.update(msgspec.convert(batch, Batch))
        assert "evil" in shown.getvalue().lower()
        # The bar moves the cursor itself, and draws no more lines than its own.
        assert not any(part in shown.getvalue().lower() for part in OBEYED)


def test_results_on_a_terminal_are_the_same_values(
    command: Command, hostile: type[Service]
) -> None:
    """In a pipe they are the service's own bytes; a terminal gets what it does not obey."""
    words = ("fetch", "batch_1", "-o", "out", "--errors", "-")
    piped, shown = (command(*words, terminal=terminal) for terminal in (False, True))
    assert obeyed(shown.out) == set()
    assert obeyed(piped.out)
    lines = [
        [json.loads(line) for line in ended.out.split("\n") if line] for ended in (piped, shown)
    ]
    assert lines[0] == lines[1]
    assert lines[0][0]["custom_id"] == HOSTILE


@pytest.mark.parametrize("line", ["status batch_1", "list", "watch batch_1", "submit NAME"])
def test_json_stays_exact(command: Command, hostile: type[Service], line: str) -> None:
    ended = command(*words(line), "--json", terminal=True)
    assert obeyed(ended.out) == set()
    assert HOSTILE in json.dumps(json.loads(ended.out), ensure_ascii=False).replace(
        json.dumps(HOSTILE, ensure_ascii=False)[1:-1], HOSTILE
    )


def test_rows_of_a_pipe_are_as_many_as_batches(command: Command, hostile: type[Service]) -> None:
    lines = command("list").out.splitlines()
    assert len(lines) == 3
    assert {line.count("\t") for line in lines} == {5}


def test_names_of_models_and_folders(command: Command, tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'home' / 'tidemill.db'}")
    database.migrate()
    models.add(database, HOSTILE, f"/nowhere/{HOSTILE}")
    database.close()
    for line in (
        ["models", "list"],
        ["models", "add", "m", HOSTILE],
        ["models", "add", HOSTILE, "x"],
    ):
        for terminal in (False, True):
            ended = command(*line, terminal=terminal)
            assert "evil" in ended.out + ended.err
            assert obeyed(ended.out + ended.err) <= ({"\t"} if not terminal else set())
    refused = command("run", NAME, "--model", HOSTILE + "x")
    assert refused.code == 2
    assert obeyed(refused.err) == set()


def test_what_is_typed_wrongly(command: Command) -> None:
    for line in (
        ["status"],
        [HOSTILE],
        ["run", NAME, HOSTILE, "--format", HOSTILE],
        ["--" + HOSTILE],
    ):
        ended = command(*line)
        assert (ended.code, len(ended.err.splitlines())) == (2, 1)
        assert obeyed(ended.err) == set()
    for path in (HOSTILE, f"{NAME}x", f"./{NAME}/x"):
        ended = command("run", path)
        assert (ended.code, len(ended.err.splitlines())) == (1, 1)
        assert obeyed(ended.err) == set()


@pytest.mark.parametrize(
    ("window", "good"),
    [
        *((window, True) for window in ("1h", "24h", "7d", "365d", "8760h")),
        *((window, False) for window in ("", "24", "h", "0h", "01h", "-1d", "1.5h", "1w", "24 h")),
        *((window, False) for window in ("24H", "366d", "8761h", "99999d", "7d\n", "\u0661h")),
    ],
)
def test_a_window_that_the_service_would_refuse_is_refused_before_the_call(
    command: Command, hostile: type[Service], window: str, *, good: bool
) -> None:
    for words in (("submit", NAME), ("retry", "batch_1")):
        hostile.seen.clear()
        ended = command(*words, "--window", window)
        assert (ended.code, bool(hostile.seen)) == ((0, True) if good else (2, False)), ended.err
        if not good:
            assert "--window" in ended.err
            assert "at most 365d" in ended.err
            assert len(ended.err.splitlines()) == 1


def test_an_id_that_cannot_be_one_is_refused_before_the_call(
    command: Command, hostile: type[Service]
) -> None:
    for name in ("status", "watch", "fetch", "cancel", "pause", "resume", "retry"):
        ended = command(name, "../../etc/passwd")
        assert ended.code == 2
        assert "'../../etc/passwd' cannot be an id" in ended.err
        assert len(ended.err.splitlines()) == 1
    assert hostile.seen == []
