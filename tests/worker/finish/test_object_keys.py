"""Objects are named after the service's own ids; nothing that a client wrote gets into a key."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from storage.database.states import JobState

HOSTILE = ["../../../etc/passwd", "a/b", "\\..\\x", "%2e%2e%2f", "..", "\u0000", "x" * 3_000, "é☃"]
OURS = re.compile(
    r"files/default/file-\w+"
    r"|plans/batch_\w+/\d+/\d+-\d+\.arrow"
    r"|parts/batch_\w+/\d+-\d+/\d+\.jsonl"
    r"|results/batch_\w+/\d+/(output|errors|report)\.jsonl"
)


@pytest.mark.parametrize("on_invalid", ["fail", "skip"])
def test_every_key_is_built_from_ids(
    bench: Any, line: Callable[..., dict[str, Any]], on_invalid: str
) -> None:
    lines = [line(name, [number + 2]) for number, name in enumerate(HOSTILE)]
    lines += [line(f"{name} again", "w", model=name) for name in HOSTILE]
    lines += [line(f"{name} user", "w", user=name) for name in HOSTILE]
    job = bench.finish(bench.create(lines, on_invalid=on_invalid))
    assert job.state == (JobState.COMPLETED if on_invalid == "skip" else JobState.FAILED)
    keys = [info.key for info in bench.worker.store.list("")]
    made = {"files", "results"} | ({"plans", "parts"} if on_invalid == "skip" else set())
    assert {key.split("/")[0] for key in keys} == made
    assert [key for key in keys if not OURS.fullmatch(key)] == []
