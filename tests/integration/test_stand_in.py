"""``tidemill run`` with the runtime of a GPU, on the stand-in: worker, engine process and all."""

import random
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from integration.harness import tiny
from integration.support import ENVIRONMENT

pytestmark = pytest.mark.slow


def tidemill(*arguments: str | Path, home: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tidemill.cli.main", *map(str, arguments), "--home", str(home)],
        env=ENVIRONMENT
        | {"TIDEMILL_DEVICE": "stand-in", "TIDEMILL_MAX_NUM_SEQS": "24"}
        | {"TIDEMILL_MAX_BATCH_TOKENS": "256", "TIDEMILL_LOG_LEVEL": "INFO"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_every_line_gets_its_own_answer(tmp_path: Path) -> None:
    source = random.Random(4)
    bodies = []
    for _ in range(120):
        topic = " ".join(tiny.WORDS[place] for place in range(source.choice([0, 3, 40])))
        words = " ".join(source.choices(tiny.WORDS, k=source.randint(1, 20)))
        bodies.append({"prompt": f"{topic} {words}".strip(), "max_tokens": source.randint(1, 12)})
    lines = [
        {
            "custom_id": str(number),
            "method": "POST",
            "url": "/v1/completions",
            "body": {"model": "tiny", "temperature": 0, **body},
        }
        for number, body in enumerate(bodies)
    ]
    given, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    given.write_bytes(b"\n".join(map(orjson.dumps, lines)) + b"\n")
    home = tmp_path / "home"
    tidemill("models", "add", "tiny", tiny.make_checkpoint(tmp_path / "tiny"), home=home)

    said = tidemill("run", given, "-o", output, home=home)

    rows = [orjson.loads(line) for line in output.read_bytes().splitlines()]
    assert [row["custom_id"] for row in rows] == [str(number) for number in range(120)]
    for row, body in zip(rows, bodies, strict=True):
        choice = row["response"]["body"]["choices"][0]
        assert choice["text"] == tiny.answer(body), body
    assert "stand-in kernels" in said
