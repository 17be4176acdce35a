"""What every peer's worker has in common: it loads a model, then runs workloads that it is sent.

A worker is a process in its peer's own environment. It reads one JSON object a line from standard
input and answers with one on standard output:

    {"items": [[prompt token ids, output tokens], …], "shared": tokens in common or 0}
    {"seconds": …, "first": seconds to the first finished request, "output_tokens": …}

Its first line, once it can take work, is {"ready": seconds since the process began, "version": …}.
Nothing here imports more than the standard library.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple


class Item(NamedTuple):
    """One request: its prompt, and how many tokens it must generate."""

    prompt: list[int]
    output_tokens: int


# What libraries print from now on goes to standard error.
_OUT = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

# Runs requests and yields each one's number of generated tokens when it ends.
Run = Callable[[list[Item], int], Iterator[int]]


def since_start() -> float:
    """Seconds since this process was made."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def serve(version: str, run: Run) -> None:
    """Answer until standard input ends."""
    print(json.dumps({"ready": since_start(), "version": version}), file=_OUT, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        items = [Item(*item) for item in task["items"]]
        first, output = None, 0
        began = time.perf_counter()
        for tokens in run(items, task["shared"]):
            first = first or time.perf_counter() - began
            output += tokens
        answer = {
            "seconds": time.perf_counter() - began,
            "first": first,
            "output_tokens": output,
        }
        print(json.dumps(answer), file=_OUT, flush=True)
