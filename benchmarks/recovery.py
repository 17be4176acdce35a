"""How long until work that was lost is claimed again: ``python benchmarks/recovery.py``.

On the real stack with the default lease settings, under load all the time: workers are killed one
after the other, and for each the time is taken from its SIGKILL until its chunk is leased again;
then Valkey and PostgreSQL are killed and started, and the time is taken from a server's return to
the next commit of a chunk. PostgreSQL's clock is asked for nothing: all times are this machine's.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import openai
import psycopg

ROOT = Path(__file__).resolve().parents[1]
if TYPE_CHECKING:
    from integration.harness.arena import Arena
    from integration.harness.tenant import Tenant
    from stack.process import Managed
    from stack.server import Server

POLL_SECONDS = 0.1
GIVE_UP_SECONDS = 180.0
SETTINGS = {"chunk_lines": "100", "max_num_seqs": "8"}
LINES, TOKENS = 1_500, (8, 48)
FEEDERS = 2  # of each tenant
DOWN_SECONDS = (3.0, 10.0, 20.0)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Lost:
    """A chunk whose worker was killed at ``at`` (monotonic seconds)."""

    chunk: str
    job: str
    a: int
    b: int
    attempt: int
    at: float


@dataclass
class Figures:
    """Seconds, in the order in which they were measured."""

    workers: int
    cores: int
    kills: int = 0
    leased_again: list[float] = field(default_factory=list)
    given_up: int = 0
    after_valkey: list[float] = field(default_factory=list)
    after_postgres: list[float] = field(default_factory=list)

    def table(self) -> str:
        """All of it for people."""
        lines = [f"{self.workers} workers on {self.cores} cores, {self.kills} of them killed"]
        for name, values in (
            ("SIGKILL → chunk leased again", self.leased_again),
            ("Valkey back → next commit", self.after_valkey),
            ("PostgreSQL back → next commit", self.after_postgres),
        ):
            lines.append(f"{name:<32} {summary(values)}")
        if self.given_up:
            lines.append(f"never leased again within {GIVE_UP_SECONDS:.0f} s: {self.given_up}")
        return "\n".join(lines)


def summary(values: Sequence[float]) -> str:
    """Count, median, 99th percentile and greatest of some seconds."""
    if not values:
        return "n 0"
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, -(-99 * len(ordered) // 100) - 1)]
    return (
        f"n {len(ordered):>3}   p50 {statistics.median(ordered):5.1f} s   "
        f"p99 {p99:5.1f} s   max {ordered[-1]:5.1f} s"
    )


class Eye:
    """Reads the database past the proxy. A database that is away for a moment is no error."""

    def __init__(self, url: str) -> None:
        self._url = url

    def rows(self, query: str, *values: object) -> list[Row]:
        """What a query finds.

        Raises:
            psycopg.Error: the database is away.
        """
        with psycopg.connect(self._url, connect_timeout=2) as connection:
            return connection.execute(query, values).fetchall()

    def held_by(self, pid: int) -> list[Row]:
        """The chunks that a worker process holds: id, job, a, b, attempt."""
        return self.rows(
            "SELECT id, job_id, a, b, attempt FROM chunk WHERE state = 'leased' AND owner LIKE %s",
            f"%/{pid}/%",
        )

    def leased_again(self, lost: Lost) -> bool:
        """Whether a chunk, or a piece of it if it was split, was claimed after it was lost."""
        found = self.rows(
            "SELECT 1 FROM chunk WHERE (id = %s AND attempt > %s)"
            " OR (job_id = %s AND a >= %s AND b <= %s AND b - a < %s AND attempt > 0)",
            *(lost.chunk, lost.attempt, lost.job, lost.a, lost.b, lost.b - lost.a),
        )
        return bool(found)

    def commits(self) -> int:
        """How many chunks are committed."""
        return int(self.rows("SELECT count(*) FROM chunk WHERE state = 'done'")[0][0])


def feed(tenant: "Tenant", seed: str, closing: threading.Event) -> None:
    """Keep one job of a tenant going."""
    from integration.harness.orders import make_order

    source = random.Random(seed)

    def over(batch: Any) -> bool:
        return closing.is_set() or batch.status == "completed"

    while not closing.is_set():
        with suppress(openai.OpenAIError, httpx.HTTPError, TimeoutError):
            batch = tenant.submit(make_order(source, LINES, tokens=TOKENS))
            tenant.wait(batch.id, over, seconds=900)


def kill_workers(arena: "Arena", eye: Eye, figures: Figures, kills: int, every: float) -> None:
    """Kill a worker that holds chunks, again and again, and wait for what they held."""
    lost: list[Lost] = []
    turn = 0
    next_kill = time.monotonic()
    while figures.kills < kills or lost:
        if figures.kills < kills and time.monotonic() >= next_kill:
            worker = arena.stack.workers[turn % len(arena.stack.workers)]
            turn += 1
            taken = kill(worker, eye)
            if taken:
                lost += taken
                figures.kills += 1
                next_kill = time.monotonic() + every
                say(f"kill {figures.kills}")
        for one in list(lost):
            waited = time.monotonic() - one.at
            if eye.leased_again(one):
                figures.leased_again.append(round(waited, 2))
                lost.remove(one)
                say(f"leased again after {waited:.1f} s")
            elif waited > GIVE_UP_SECONDS:
                figures.given_up += 1
                lost.remove(one)
        time.sleep(POLL_SECONDS)


def kill(worker: "Managed", eye: Eye) -> list[Lost]:
    """SIGKILL a worker in the middle of its work and start it anew; what it held, if anything.

    Its engine, which it leaves behind, ends by itself.
    """
    if not worker.running:
        worker.launch()
        return []
    pid = worker.pid
    if not eye.held_by(pid):
        return []
    at = time.monotonic()
    worker.signal(signal.SIGKILL)
    # Only now, so that nothing that it still committed counts as lost.
    while worker.running:
        time.sleep(0.001)
    held = [Lost(*row, at) for row in eye.held_by(pid)]
    worker.launch()
    return held


def restart(server: "Server", down: float, eye: Eye) -> float:
    """Kill a server for some seconds; the seconds from its return to the next commit."""
    server.kill()
    time.sleep(down)
    server.start()
    back = time.monotonic()
    before = eye.commits()
    while eye.commits() == before and time.monotonic() - back < GIVE_UP_SECONDS:
        time.sleep(POLL_SECONDS)
    return round(time.monotonic() - back, 2)


def say(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def measure(arena: "Arena", figures: Figures, kills: int, every: float, outages: int) -> None:
    """Everything, under load."""
    eye = Eye(arena.stack.postgres.url)
    closing = threading.Event()
    feeders = [
        threading.Thread(target=feed, args=(tenant, f"{tenant.name} {number}", closing))
        for number in range(FEEDERS)
        for tenant in arena.tenants
    ]
    for feeder in feeders:
        feeder.start()
    try:
        torment(arena, eye, figures, kills, every, outages)
    finally:
        closing.set()
        for feeder in feeders:
            feeder.join()


def torment(
    arena: "Arena", eye: Eye, figures: Figures, kills: int, every: float, outages: int
) -> None:
    """Outages first, then kills."""
    while eye.commits() < 2 * len(arena.stack.workers):
        time.sleep(0.5)
    for number in range(outages):
        down = DOWN_SECONDS[number % len(DOWN_SECONDS)]
        figures.after_valkey.append(restart(arena.stack.valkey, down, eye))
        figures.after_postgres.append(restart(arena.stack.postgres, down, eye))
        last = f"Valkey {figures.after_valkey[-1]}, PostgreSQL {figures.after_postgres[-1]}"
        say(f"next commit after {down:g} s of outage: {last}")
    kill_workers(arena, eye, figures, kills, every)


def main() -> int:
    """Parse, run, print."""
    sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "deploy")]
    from integration.harness.arena import open_arena

    parser = argparse.ArgumentParser(description="Times to recover, on the real stack.")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--every", type=float, default=7.0, help="seconds between kills")
    parser.add_argument("--outages", type=int, default=5, help="of either server")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = Figures(args.workers, len(os.sched_getaffinity(0)))
    with (
        tempfile.TemporaryDirectory(prefix="tidemill-recovery-") as folder,
        open_arena(Path(folder), workers=args.workers, **SETTINGS) as arena,
    ):
        measure(arena, figures, args.kills, args.every, args.outages)
    print(json.dumps(asdict(figures)) if args.json else figures.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
