"""A soak: load without end, a measured part, faults, quiet, and the judgement of every line."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from integration.harness.arena import Arena
from integration.harness.nemesis import Nemesis
from integration.soak.report import Result
from integration.soak.workload import Book, Customer, judge_all

FLUSH_SECONDS = 60.0
SLICES = 4  # calm and flushed in turn
LONGEST_SLICE_SECONDS = 120.0
WARM_LINES = 500
WARM_SECONDS = 90.0
SETTLE_SECONDS = 150.0
PATIENCE_SECONDS = 180.0
SAY_SECONDS = 20.0
LONGEST_STOP_SECONDS = 25.0  # of a process: longer than a lease of `SETTINGS`
SETTINGS = {
    "chunk_lines": "100",
    "lease_seconds": "15",
    "renew_seconds": "3",
    "reconcile_seconds": "2",
    "engine_hang_seconds": "10",
    "max_num_seqs": "32",
}


@dataclass(frozen=True, slots=True)
class Load:
    """What the customers ask for; three of each tenant are at it all the time by default."""

    customers: int = 3
    sizes: Sequence[int] = (200, 400, 800, 1600)
    tokens: tuple[int, int] = (8, 48)


class Soak:
    """One run on a stack that is up. ``folder`` keeps the inputs until the judgement."""

    def __init__(self, arena: Arena, folder: Path, seed: int, load: Load | None = None) -> None:
        self._arena = arena
        self._seed = seed
        self._load = load or Load()
        self._book = Book(folder)
        self._closing = threading.Event()
        self._began = time.monotonic()
        self._flushes = 0
        self.result = Result(seed=seed, workers=len(arena.stack.workers))

    def run(self, minutes: float, *, measure: bool = True, faults: int = 0) -> Result:
        """Load for so many minutes, a good quarter of them without faults if it ``measures``.

        On a slow machine it goes on, three minutes at most, until so many ``faults`` have struck.
        """
        end = self._began + 60 * minutes
        customers = self._customers()
        for customer in customers:
            customer.start()
        with self._every(SAY_SECONDS, self._tell):
            self._warm_up()
            if measure:
                self._measure(min(LONGEST_SLICE_SECONDS, 60 * minutes / 15))
            self._torment(end, faults)
            self._settle(customers)
        self._judge()
        return self.result

    def _customers(self) -> list[Customer]:
        load = self._load
        return [
            Customer(
                tenant, self._book, f"{self._seed}/{n}", self._closing, load.sizes, load.tokens
            )
            for n in range(load.customers)
            for tenant in self._arena.tenants
        ]

    def _warm_up(self) -> None:
        deadline = time.monotonic() + WARM_SECONDS
        while self._book.lines < WARM_LINES and time.monotonic() < deadline:
            time.sleep(0.5)

    def _measure(self, seconds: float) -> None:
        for number in range(SLICES):
            speeds = (self.result.calm, self.result.flushed)[number % 2]
            before, began = self._book.lines, time.monotonic()
            if speeds is self.result.flushed:
                with self._every(FLUSH_SECONDS, self._flush):
                    self._flush()
                    time.sleep(seconds)
            else:
                time.sleep(seconds)
            speeds.append(round((self._book.lines - before) / (time.monotonic() - began), 1))
            kind = "calm" if speeds is self.result.calm else "FLUSHALL a minute"
            self._say(f"{kind}: {speeds[-1]:.0f} lines/s")

    def _torment(self, end: float, faults: int) -> None:
        nemesis = Nemesis(self._arena.victims(LONGEST_STOP_SECONDS), self._seed)
        self._say("faults begin")
        nemesis.start()
        with self._every(FLUSH_SECONDS, self._flush):
            while (now := time.monotonic()) < end + PATIENCE_SECONDS:
                if now >= end and nemesis.struck.total() >= faults:
                    break
                time.sleep(0.5)
                self.result.faults = nemesis.struck.copy()
        nemesis.stop()
        self.result.faults = nemesis.struck + Counter({"flush valkey": self._flushes})
        self.result.warnings += nemesis.failures
        self._say("faults end")

    def _settle(self, customers: Sequence[Customer]) -> None:
        """Everything runs again, and every job must come to its end."""
        self._closing.set()
        self.result.warnings += self._arena.revive()
        deadline = time.monotonic() + SETTLE_SECONDS
        for customer in customers:
            customer.join(max(0.0, deadline - time.monotonic()))
        self._book.closed.set()
        self.result.warnings += [f"{entry.batch_id} did not end" for entry in self._book.open]

    def _judge(self) -> None:
        self._say(f"judging {len(self._book.entries)} jobs")
        result, refused = self.result, self._book.refused
        tally = judge_all(self._book, [tenant.witness for tenant in self._arena.tenants])
        result.jobs, result.lines, result.answered = tally.jobs, tally.lines, tally.answered
        result.false_poison = tally.false_poison
        result.broken = tally.broken + Counter(refused=len(refused))
        result.details = refused + tally.details
        result.engine_starts = self._arena.count_in_logs("engine_ready")
        result.seconds = round(time.monotonic() - self._began, 1)

    def _flush(self) -> None:
        try:
            self._arena.stack.valkey.flush()
            self._flushes += 1
        except redis.RedisError:
            pass  # it is down at the moment, which wipes it no less

    def _tell(self) -> None:
        book = self._book
        self._say(
            f"{len(book.entries)} jobs ({len(book.open)} open), {book.lines:,} lines answered, "
            f"{self.result.faults.total() + self._flushes} faults"
        )

    def _say(self, text: str) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._began), 60)
        print(f"{minutes:3}:{seconds:02}  {text}", file=sys.stderr, flush=True)

    @contextmanager
    def _every(self, seconds: float, do: Callable[[], None]) -> Iterator[None]:
        """Do something now and then while the context lasts."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(seconds):
                do()

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
