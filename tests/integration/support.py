"""A real ``tidemill up`` in a process of its own, and the checker of its results."""

import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
from openai import OpenAI
from openai.types import Batch

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")}


class Up:
    """``tidemill up`` on a home folder, restartable after a kill."""

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self._environment = ENVIRONMENT | {f"TIDEMILL_{k.upper()}": v for k, v in settings.items()}
        self.process: subprocess.Popen[str] | None = None
        self.url = ""

    def start(self) -> "Up":
        command = [sys.executable, "-m", "tidemill.cli.main", "up", "--port", "0"]
        self.process = subprocess.Popen(
            [*command, "--home", str(self.home)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        found = re.search(r"http://\S+/v1", self.process.stdout.readline())
        assert found is not None, "tidemill up did not say where it listens"
        self.url = found.group()
        return self

    def signal(self, number: signal.Signals, timeout: float = 60) -> int:
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout)
        self.process.stdout.close()
        self.process = None
        return code

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=self.url, api_key="unused", max_retries=5)


def request(custom_id: str, content: str, **options: Any) -> dict[str, Any]:
    """A line of a batch's input."""
    body = {
        "model": "smollm2",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 8,
        "temperature": 0,
    }
    return {
        "custom_id": custom_id,
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body | options,
    }


def jsonl(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(orjson.dumps(line) + b"\n" for line in lines)


def download(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    """A result file's lines; none where there is no file."""
    if file_id is None:
        return []
    text = client.files.content(file_id).content
    assert text, "an empty result file must not exist"
    return [orjson.loads(line) for line in text.splitlines()]


def check_exactly_once(client: OpenAI, batch: Batch, ids: list[str]) -> None:
    """Every line once, in the input's order, and the counts equal to what the files hold.

    Looks at nothing but the input's ids, the two files and the batch object.
    """
    output = download(client, batch.output_file_id)
    errors = download(client, batch.error_file_id)
    done = [line["custom_id"] for line in output]
    failed = [line["custom_id"] for line in errors]
    assert Counter(done + failed) == Counter(ids)
    place = {custom_id: number for number, custom_id in enumerate(ids)}
    assert done == sorted(done, key=place.__getitem__)
    assert failed == sorted(failed, key=place.__getitem__)
    assert batch.request_counts is not None
    assert batch.request_counts.total == len(ids)
    assert batch.request_counts.completed == len(done)
    assert batch.request_counts.failed == len(failed)
