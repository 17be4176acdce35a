"""The whole service in one process: what it loads, and how soon it has ended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The line is refused by the planner, so that no engine is needed.
SCRIPT = """
import sys, time
from pathlib import Path
from storage.settings import Settings
from tidemill.client import Client, Upload
from tidemill.serve.logs import start_logs
from tidemill.serve.service import Service

settings = Settings.load(home=Path(sys.argv[1]), port=0, reconcile_seconds=3600, env_file=None)
start_logs(settings)
with Service(settings) as service:
    with Client(service.url) as client:
        file = client.upload(Upload("in.jsonl", lambda: [b"{"]))
        batch = client.create_batch(
            file.id, "/v1/chat/completions", options={"on_invalid": "skip"}
        )
        *_, last = client.watch(batch.id, service.pause)
    began = time.monotonic()
print(last.status, last.request_counts.failed)
print(sorted({"celery", "kombu", "amqp", "redis"} & sys.modules.keys()))
print(time.monotonic() - began)
"""


@pytest.mark.slow
def test_without_a_broker_no_celery_is_loaded_and_the_end_is_quick(tmp_path: Path) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEMILL_")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    ended, loaded, seconds = done.stdout.splitlines()
    assert ended == "completed 1"
    assert loaded == "[]"
    assert float(seconds) < 3
