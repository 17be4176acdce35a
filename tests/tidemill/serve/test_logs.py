"""The log of a process: one event a line, whoever says it."""

import json
import subprocess
import sys

PROGRAM = """
import logging, structlog
from tidemill.serve.logs import configure_logs
configure_logs("INFO")
structlog.get_logger("own").info("chunk_done", lines=3)
logging.getLogger("celery.worker").error("Cannot connect: %s.\\nTrying again\\n\\n", "refused")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("library").exception("broken")
logging.getLogger("library").info("not of interest")
"""


def test_libraries_log_as_we_do_one_event_a_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True
    )
    own, celery, broken = (json.loads(line) for line in done.stderr.splitlines())
    assert (own["event"], own["lines"], own["level"]) == ("chunk_done", 3, "info")
    assert celery["event"] == "Cannot connect: refused. Trying again"
    assert (celery["logger"], celery["level"]) == ("celery.worker", "error")
    assert "ZeroDivisionError" in broken["exception"]
