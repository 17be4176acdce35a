"""The command as a user meets it: help, wrong usage, errors, exit codes."""

import hashlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from storage.home import Home

COMMANDS = (
    *("up", "run", "submit", "status", "watch", "fetch", "cancel", "list", "doctor"),
    *("pause", "resume", "retry", "estimate"),
    *("api", "worker", "reconciler"),
    *("models list", "models add", "models pull"),
)
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def tidemill(tmp_path: Path, home: Path) -> Run:
    """Runs the command in an empty folder, with a home folder of its own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")}
    environment |= {"TIDEMILL_HOME": str(home), "COLUMNS": "200"}

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tidemill.cli.main", *arguments],
            cwd=tmp_path,
            env=environment | extra,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


def test_every_command_explains_itself_with_an_example_and_its_exit_codes(tidemill: Run) -> None:
    overview = tidemill("--help").stdout
    for command in COMMANDS:
        assert command.split()[0] in overview
        shown = tidemill(*command.split(), "--help")
        assert shown.returncode == 0
        assert f"tidemill {command}" in shown.stdout.replace("python -m tidemill.cli.main", "")
    assert "130 Ctrl-C" in tidemill("run", "--help").stdout


def test_the_version(tidemill: Run) -> None:
    assert re.fullmatch(r"tidemill \d+\S+\n", tidemill("--version").stdout)


def test_help_starts_without_the_heavy_packages() -> None:
    code = (
        "import sys, tidemill.cli.main\n"
        "heavy = {'torch', 'pyarrow', 'fastapi', 'celery', 'sqlalchemy', 'httpx', 'numpy'}\n"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [("run",), ("nonsense",), ("status",), ("run", "x", "--format", "xml"), ("up", "--port", "x")],
)
def test_wrong_usage_is_exit_code_2(tidemill: Run, arguments: tuple[str, ...]) -> None:
    done = tidemill(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("content", "arguments", "code", "message"),
    [
        (None, (), 1, "in.txt cannot be read"),
        (b'{"text": "a"}\n', (), 1, 'Line 1: {"text": "a"}'),
        (b"a\n", ("--json", "-o", "-"), 2, "both want standard output"),
        (b'{"custom_id":"a","body":{}}', ("--model", "m"), 2, "leave out --model"),
        (b"a\n", ("--column", "c"), 1, "no column 'c'"),
        (b"a\n", ("-o", ""), 2, "need the name of a file or a folder"),
        (b"a\n", ("--errors", ""), 2, "need the name of a file or a folder"),
        (b"a\n", ("-o", "in.txt"), 2, "The input and the output are the same file"),
        (b"a\n", ("-o", "nowhere/x"), 1, "there is no folder nowhere"),
    ],
)
def test_what_run_refuses_before_any_work(
    tidemill: Run,
    tmp_path: Path,
    content: bytes | None,
    arguments: tuple[str, ...],
    code: int,
    message: str,
) -> None:
    if content is not None:
        (tmp_path / "in.txt").write_bytes(content)
    done = tidemill("run", "in.txt", *arguments)
    assert message in done.stderr
    assert done.returncode == code
    assert "Traceback" not in done.stderr


def test_other_machines_need_a_key(tidemill: Run, home: Path) -> None:
    done = tidemill("up", "--host", "0.0.0.0", "--port", "0")
    assert done.returncode == 1
    assert "without an API key" in done.stderr
    assert not home.exists()


def test_a_port_that_is_in_use(tidemill: Run, taken_port: int) -> None:
    done = tidemill("up", "--port", str(taken_port))
    assert done.returncode == 1
    assert f"Port {taken_port} of 127.0.0.1 is in use" in done.stderr


def test_a_home_that_is_in_use_names_the_owner(tidemill: Run, home: Path) -> None:
    with Home.lock(home) as held:
        held.announce("http://127.0.0.1:1234")
        done = tidemill("up", "--port", "0")
    assert done.returncode == 1
    assert str(os.getpid()) in done.stderr
    assert "http://127.0.0.1:1234" in done.stderr


def test_a_wrong_setting_is_named(tidemill: Run) -> None:
    done = tidemill("up", TIDEMILL_LEASE_SECONDS="soon")
    assert done.returncode == 1
    assert "TIDEMILL_LEASE_SECONDS" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", [("up", "--port", "0"), ("worker",), ("run", "in"), ("doctor",)]
)
def test_a_value_that_the_engine_does_not_know_is_named(
    tidemill: Run, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "in").write_text("Why?\n")
    done = tidemill(*command, TIDEMILL_QUANTIZATION="int3")
    assert done.returncode == 1
    assert "TIDEMILL_QUANTIZATION" in done.stderr
    assert "auto, none, int8, fp8 or int4" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "command", ["up", "api", "worker", "reconciler", "run in", "doctor --json"]
)
def test_a_variable_that_nothing_reads_is_named(
    tidemill: Run, tmp_path: Path, command: str
) -> None:
    (tmp_path / "in").write_text("Why?\n")
    # Each of them is refused soon after, for its broker or its database.
    wrong = {"TIDEMILL_BROKER_URL": "redis://127.0.0.1:1/0"} if command in ("up", "run in") else {}
    done = tidemill(*command.split(), TIDEMILL_LEASE_SECOND="60", **wrong)
    assert "Traceback" not in done.stderr
    warnings = [line for line in done.stderr.splitlines() if "unknown_settings" in line]
    (entry,) = map(orjson.loads, warnings)
    assert entry["found"] == "TIDEMILL_LEASE_SECOND (did you mean TIDEMILL_LEASE_SECONDS?)"
    if command.startswith("doctor"):
        assert orjson.loads(done.stdout)


def test_run_leaves_the_work_of_a_broker_to_its_workers(tidemill: Run, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("Why?\n")
    done = tidemill("run", "in.txt", TIDEMILL_BROKER_URL="redis://localhost/0")
    assert done.returncode == 2
    assert "tidemill submit" in done.stderr


def test_a_shared_database_needs_a_shared_broker(tidemill: Run, home: Path) -> None:
    done = tidemill("up", "--port", "0", TIDEMILL_DATABASE_URL="postgresql://u:p@127.0.0.1:1/x")
    assert done.returncode == 1
    assert "set TIDEMILL_BROKER_URL" in done.stderr
    assert not home.exists()


def test_no_service_is_said_with_what_to_do(tidemill: Run, taken_port: int) -> None:
    done = tidemill("list", "--url", f"http://127.0.0.1:{taken_port + 1}", "--json")
    assert done.returncode == 1
    assert "tidemill up" in done.stderr


def test_submit_status_list_cancel(tidemill: Run, tmp_path: Path, api_url: str) -> None:
    reach = {"TIDEMILL_URL": api_url, "TIDEMILL_API_KEY": "secret"}
    (tmp_path / "in.txt").write_text("Why?\nHow?\n")
    submitted = tidemill("submit", "in.txt", **reach)
    assert submitted.returncode == 0, submitted.stderr
    batch_id = submitted.stdout.strip()
    assert batch_id.startswith("batch_")
    status = orjson.loads(tidemill("status", batch_id, "--json", **reach).stdout)
    digest = hashlib.sha256((tmp_path / "in.txt").read_bytes()).hexdigest()
    assert status["id"] == batch_id
    assert status["metadata"] == {"input": "in.txt", "input_sha256": digest}
    assert batch_id in tidemill("status", batch_id, **reach).stdout
    header, first, *_ = tidemill("list", **reach).stdout.splitlines()
    assert header.split("\t")[0] == "id"
    assert first.split("\t")[0] == batch_id
    unfinished = tidemill("fetch", batch_id, **reach)
    assert (unfinished.returncode, unfinished.stdout) == (1, "")
    assert f"tidemill watch {batch_id}" in unfinished.stderr
    assert tidemill("cancel", batch_id, **reach).stdout == "cancelling\n"


def test_a_table_of_any_name_is_submitted_with_its_window(
    tidemill: Run, tmp_path: Path, api_url: str
) -> None:
    reach = {"TIDEMILL_URL": api_url, "TIDEMILL_API_KEY": "secret"}
    (tmp_path / "caf\udce9.csv").write_text("id,question\n1,Why?\n")
    submitted = tidemill(
        "submit", "caf\udce9.csv", "--column", "question", "--window", "3d", "--json", **reach
    )
    assert submitted.returncode == 0, submitted.stderr
    assert "Reading caf\ufffd.csv as CSV: by its name, column question\n" in submitted.stderr
    batch = orjson.loads(submitted.stdout)
    assert batch["completion_window"] == "3d"
    assert batch["metadata"]["input"] == "caf\ufffd.csv"


def test_a_batch_that_was_made_is_told_though_the_next_input_fails(
    tidemill: Run, tmp_path: Path, api_url: str
) -> None:
    reach = {"TIDEMILL_URL": api_url, "TIDEMILL_API_KEY": "secret"}
    (tmp_path / "in.txt").write_text("Why?\n")
    request = {"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {}}
    (tmp_path / "refused.jsonl").write_bytes(orjson.dumps(request))
    done = tidemill("submit", "in.txt", "refused.jsonl", "--json", **reach)
    assert (done.returncode, "/v1/embeddings" in done.stderr) == (1, True), done.stderr
    (batch,) = orjson.loads(done.stdout)
    status = orjson.loads(tidemill("status", batch["id"], "--json", **reach).stdout)
    assert status["metadata"]["input"] == "in.txt"


def test_an_unknown_batch_is_the_services_error(tidemill: Run, api_url: str) -> None:
    done = tidemill("status", "batch_none", "--url", api_url, "--api-key", "secret")
    assert done.returncode == 1
    assert "batch_none" in done.stderr


def test_models_are_added_after_a_look_at_them(tidemill: Run, tmp_path: Path) -> None:
    names = [row["name"] for row in orjson.loads(tidemill("models", "list", "--json").stdout)]
    assert names == ["smollm2"]
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"architectures": ["Nonsense"]}')
    refused = tidemill("models", "add", "mine", "model")
    assert refused.returncode == 1
    assert "Nonsense" in refused.stderr
    assert "LlamaForCausalLM" in refused.stderr
    missing = tidemill("models", "add", "mine", "nowhere")
    assert missing.returncode == 1
    assert "Traceback" not in missing.stderr


def test_doctor_finds_what_is_missing(tidemill: Run, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    kept = cache / "tidemill" / "weights"
    kept.mkdir(parents=True)
    (kept / "one.safetensors").touch()
    os.truncate(kept / "one.safetensors", 3 << 29)
    wrong = {"TIDEMILL_DEFAULT_MODEL": "/nowhere", "XDG_CACHE_HOME": str(cache)}
    done = tidemill("doctor", "--json", **wrong)
    checks = {check["name"]: check for check in orjson.loads(done.stdout)}
    assert done.returncode == 1
    assert not checks["model"]["ok"]
    assert checks["python"]["ok"]
    assert not checks["service"]["needed"]
    assert checks["kept weights"]["found"] == f"1.5 GiB in {kept}"
