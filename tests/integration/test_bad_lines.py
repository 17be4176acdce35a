"""A file of a thousand lines with a dozen bad ones, through ``tidemill run``."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from integration.support import ENVIRONMENT, request

pytestmark = pytest.mark.slow

# line number → (the line, a word of the reason)
BAD: dict[int, tuple[bytes | dict[str, Any], str]] = {
    3: (b"this is no JSON", "JSON"),
    90: (b'{"custom_id": "cut short", "method"', "JSON"),
    177: (b"[1, 2, 3]", "object"),
    264: ({**request("", "x"), "custom_id": None}, "custom_id"),
    351: (request("line-1", "the id of the first line"), "line-1"),
    438: ({**request("method", "x"), "method": "GET"}, "method"),
    525: ({**request("url", "x"), "url": "/v1/embeddings"}, "url"),
    612: (request("model", "x", model="no-such-model"), "no-such-model"),
    699: (request("temperature", "x", temperature=9), "temperature"),
    786: (request("unknown", "x", temprature=0), "temprature"),
    873: (request("long", "word " * 9000), "8192"),
    1000: (request("stream", "x", stream=True), "stream"),
}


def test_988_answers_12_errors_in_order(tmp_path: Path) -> None:
    lines = []
    for number in range(1, 1001):
        bad = BAD.get(number, (request(f"line-{number}", f"Say {number}.", max_tokens=2), ""))[0]
        lines.append(bad if isinstance(bad, bytes) else orjson.dumps(bad))
    source, output, errors = (tmp_path / name for name in ("in.jsonl", "out.jsonl", "bad.jsonl"))
    source.write_bytes(b"\n".join(lines) + b"\n")
    command = [sys.executable, "-m", "tidemill.cli.main", "run", str(source), "-o", str(output)]
    done = subprocess.run(
        [*command, "--errors", str(errors), "--home", str(tmp_path / "home")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    answers = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert [line["custom_id"] for line in answers] == [
        f"line-{number}" for number in range(1, 1001) if number not in BAD
    ]
    assert all(line["response"]["body"]["choices"][0]["message"] for line in answers)
    refused = [orjson.loads(line) for line in errors.read_bytes().splitlines()]
    assert [_number(line) for line in refused] == list(BAD)
    for line in refused:
        assert BAD[_number(line)][1] in orjson.dumps(line).decode(), line


def _number(line: dict[str, Any]) -> int:
    number = line["tidemill"]["line"]
    assert isinstance(number, int)
    return number
