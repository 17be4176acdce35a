"""The command end to end, on the real engine and the embedded model."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

import httpx
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

Run = Callable[..., subprocess.CompletedProcess[str]]
COMMAND = (sys.executable, "-m", "tidemill.cli.main")
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")}


@pytest.fixture(scope="module")
def up_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home folder that a running ``tidemill up`` serves."""
    home = tmp_path_factory.mktemp("up") / "home"
    process = subprocess.Popen(
        [*COMMAND, "up", "--port", "0", "--home", str(home)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    with process, process.stdout:
        said = process.stdout.readline()
        assert str(home) in said
        url = re.search(r"http://\S+(?=/v1)", said)
        assert url is not None
        assert httpx.get(url.group() + "/readyz").status_code == 200
        yield home
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.fixture
def tidemill(tmp_path: Path, up_home: Path) -> Run:
    """Runs the command in an empty folder, beside that service."""

    def run(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *arguments, "--home", str(up_home)],
            cwd=tmp_path,
            env=ENVIRONMENT,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run


def request(custom_id: str, **changes: Any) -> bytes:
    messages = [{"role": "user", "content": f"Say {custom_id}."}]
    body = {"model": "smollm2", "messages": messages, "max_tokens": 4, "temperature": 0}
    line = {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
    return orjson.dumps(line | changes)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments], cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )


def until(stream: IO[str], pattern: str) -> None:
    """Read on to a line that the pattern is in."""
    said = ""
    while not re.search(pattern, said):
        line = stream.readline()
        assert line, said
        said += line


def json_lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_bad_lines_of_a_batch_come_back_with_their_numbers(tidemill: Run, tmp_path: Path) -> None:
    lines = [request(str(n)) for n in range(1, 11)]
    lines[1] = b'{"custom_id": "2", '
    lines[4] = request("1")
    lines[6] = request("7", url="/v1/embeddings")
    lines[8] = request("9", body={"model": "smollm2", "messages": [], "max_tokens": 1})
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    done = tidemill("run", "in.jsonl", "--json")
    assert done.returncode == 3, done.stderr
    summary = orjson.loads(done.stdout)
    assert (summary["rows"], summary["answered"], summary["failed"]) == (10, 6, 4)
    answered = [line["custom_id"] for line in json_lines(tmp_path / "in.output.jsonl")]
    assert answered == ["1", "3", "4", "6", "8", "10"]
    failed = json_lines(tmp_path / "in.errors.jsonl")
    assert [line["tidemill"]["line"] for line in failed] == [2, 5, 7, 9]
    errors = [line["response"]["body"]["error"] for line in failed]
    assert [error["code"] for error in errors][:3] == [
        "invalid_json_line",
        "duplicate_custom_id",
        "url_mismatch",
    ]


def test_parquet_comes_back_with_its_columns(tidemill: Run, tmp_path: Path) -> None:
    table = pa.table(
        {"id": [7, 8, 9], "q": ["What is the capital of France?", None, "Name a colour."]}
    )
    pq.write_table(table, tmp_path / "in.parquet")
    done = tidemill(
        *("run", "in.parquet", "--column", "q", "--max-tokens", "12", "--temperature", "0"),
        *("--system", "You are a helpful AI assistant."),
    )
    assert done.returncode == 3, done.stderr
    rows = pq.read_table(tmp_path / "in.output.parquet").to_pylist()
    assert [row["id"] for row in rows] == [7, 8, 9]
    assert "Paris" in rows[0]["answer"]
    assert rows[1]["answer"] is None
    assert "messages" in rows[1]["error"]
    assert rows[2]["answer"]


def test_standard_input_to_standard_output(tidemill: Run) -> None:
    done = tidemill(
        *("run", "-", "-o", "-", "--endpoint", "completions", "--max-tokens", "3"),
        stdin="One, two, three,\n\nA, B, C,\n",
    )
    assert done.returncode == 0, done.stderr
    rows = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [row["prompt"] for row in rows] == ["One, two, three,", "A, B, C,"]
    assert all(row["answer"] for row in rows)


def test_submit_watch_fetch(tidemill: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Why?\nHow?\n")
    batch_id = tidemill("submit", "in.txt", "--max-tokens", "2").stdout.strip()
    watched = tidemill("watch", batch_id)
    assert watched.returncode == 0, watched.stderr
    assert "2 of 2 rows answered" in watched.stderr
    fetched = tidemill("fetch", batch_id)
    ids = [orjson.loads(line)["custom_id"] for line in fetched.stdout.splitlines()]
    assert ids == ["line-1", "line-2"]
    joined = tidemill("fetch", batch_id, "--join", "in.txt", "-o", "joined.jsonl")
    assert joined.returncode == 0, joined.stderr
    assert [row["prompt"] for row in json_lines(tmp_path / "joined.jsonl")] == ["Why?", "How?"]
    (tmp_path / "other.txt").write_text("How?\nWhy?\n")
    refused = tidemill("fetch", batch_id, "--join", "other.txt", "-o", "wrong.jsonl")
    assert refused.returncode == 1
    assert f"other.txt is not the file that {batch_id} was made of" in refused.stderr
    again = shlex.split(refused.stderr.split("The results are kept. To fetch them: tidemill ")[1])
    assert again[:6] == ["fetch", batch_id, "--output", "wrong.jsonl", "--format", "plain"]
    assert not (tmp_path / "wrong.jsonl").exists()


def test_bad_lines_fail_a_submitted_batch_and_are_shown(tidemill: Run, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(request("1") + b"\nbroken\n")
    batch_id = tidemill("submit", "in.jsonl").stdout.strip()
    watched = tidemill("watch", batch_id)
    assert watched.returncode == 4, watched.stderr
    assert "line 2: " in watched.stderr
    assert "[invalid_json_line]" in watched.stderr


def test_an_unknown_model_is_refused_before_any_work(tidemill: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Why?\n")
    done = tidemill("run", "in.txt", "--model", "nonsense")
    assert done.returncode == 2, done.stderr
    assert "There is no model 'nonsense'; there is smollm2." in done.stderr
    assert not (tmp_path / "in.errors.jsonl").exists()


def test_several_inputs_have_results_of_their_own(tidemill: Run, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("Why?\n")
    (tmp_path / "two.jsonl").write_text('{"prompt": "How?"}\n{"text": 1}\n{"text": 2}\n')
    (tmp_path / "out").mkdir()
    words = ("run", "one.txt", "two.jsonl", "--max-tokens", "2", "-o", "out", "--errors", ".")
    done = tidemill(*words, "--json")
    assert done.returncode == 3, done.stderr
    assert "  2 × parameter missing (messages), e.g. row 2: Missing required" in done.stderr
    one, two = orjson.loads(done.stdout)
    assert (one["answered"], two["answered"], two["failed"]) == (1, 1, 2)
    assert [(reason["count"], reason["row"]) for reason in two["reasons"]] == [(2, 2)]
    for name, prompt in (("one", "Why?"), ("two", "How?")):
        (row,) = json_lines(tmp_path / "out" / f"{name}.output.jsonl")
        assert row["prompt"] == prompt
    assert [row["text"] for row in json_lines(tmp_path / "two.errors.jsonl")] == [1, 2]


def test_a_run_of_its_own_that_is_interrupted_keeps_what_is_done(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("".join(f"Tell me about {n}.\n" for n in range(400)))
    process = subprocess.Popen(
        [*COMMAND, "run", "in.txt", "--home", "home", "--max-tokens", "64"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    with process, process.stderr:
        said = ""
        while not re.search(r"[1-9]\d* of 400 rows", said):
            line = process.stderr.readline()
            assert line, said
            said += line
        # As a terminal does it: to every process of the group.
        os.killpg(process.pid, signal.SIGINT)
        began = time.monotonic()
        said += process.stderr.read()
        assert process.wait(90) == 130, said
    assert time.monotonic() - began < 60
    assert "Cancelled" in said
    answered = json_lines(tmp_path / "in.output.jsonl")
    unanswered = json_lines(tmp_path / "in.errors.jsonl")
    assert answered
    assert len(answered) + len(unanswered) == 400
    assert {row["error"]["code"] for row in unanswered} == {"batch_cancelled"}


def test_the_second_signal_leaves_at_once(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("".join(f"Tell me about {n}.\n" for n in range(400)))
    process = start(tmp_path, "run", "long.txt", "--home", "home", "--max-tokens", "64")
    assert process.stderr is not None
    with process, process.stderr:
        until(process.stderr, r"Running")
        process.send_signal(signal.SIGHUP)
        until(process.stderr, r"Cancelling")
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert time.monotonic() - began < 5
    assert not (tmp_path / "long.output.jsonl").exists()


def test_a_run_after_a_killed_one_cancels_what_it_left(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("".join(f"Tell me about {n}.\n" for n in range(400)))
    (tmp_path / "short.txt").write_text("Why?\n")
    process = start(tmp_path, "run", "long.txt", "--home", "home", "--max-tokens", "64")
    assert process.stderr is not None
    with process, process.stderr:
        until(process.stderr, r"Running")
        process.kill()
    began = time.monotonic()
    after = start(tmp_path, "run", "short.txt", "--home", "home", "--max-tokens", "2")
    said = after.communicate(timeout=120)[1]
    assert after.returncode == 0, said
    assert re.search(r"batch_\w+, left by a run that was killed, is cancelled", said)
    assert len(json_lines(tmp_path / "short.output.jsonl")) == 1
    assert time.monotonic() - began < 60


def test_results_that_cannot_be_written_are_kept(up_home: Path, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Why?\nHow?\n")
    (tmp_path / "out").mkdir()
    words = ("--home", str(up_home), "--max-tokens", "8", "-o", "out/x.jsonl")
    process = start(tmp_path, "run", "in.txt", *words)
    assert process.stderr is not None
    with process, process.stderr:
        until(process.stderr, r"Uploading")
        (tmp_path / "out").rmdir()
        said = process.stderr.read()
        assert process.wait(120) == 1, said
    assert "The results are kept." in said
    command = shlex.split(said.split("To fetch them: ")[1].replace("FILE", "x.jsonl"))
    fetched = start(tmp_path, *command[1:])
    said = fetched.communicate(timeout=60)[1]
    assert fetched.returncode == 0, said
    assert [row["prompt"] for row in json_lines(tmp_path / "x.jsonl")] == ["Why?", "How?"]


def test_a_model_that_does_not_load_is_said_instead_of_waiting(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Why?\n")
    done = subprocess.run(
        [*COMMAND, "run", "in.txt", "--home", "home"],
        cwd=tmp_path,
        env=ENVIRONMENT | {"TIDEMILL_KV_CACHE_BYTES": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "does not start" in done.stderr
    assert "Traceback" not in done.stderr
