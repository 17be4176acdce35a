"""Customers who keep a service busy: each submits one job after the other and sees it to its end.

What a customer does is chosen by a seed: how large a job is, whether it is cancelled, paused for a
while, or retried. What it must come to is written down for the checker.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx
import openai
from openai.types import Batch

from integration.harness import tiny
from integration.harness.checker import Evidence, Verdict, judge
from integration.harness.orders import Order, make_order
from integration.harness.tenant import Tenant, done
from integration.harness.witness import Witness, collect

CANCEL_SHARE = 0.08
PAUSE_SHARE = 0.12
RETRY_SHARE = 0.5  # of the cancelled ones


@dataclass(frozen=True, slots=True)
class Entry:
    """A job that was accepted, and what its files were when it ended."""

    tenant: str
    batch_id: str
    path: Path
    order: Order  # without its content, which is at ``path``
    hashes: tuple[str | None, str | None] | None = None

    @property
    def full(self) -> Order:
        """The order with its content."""
        return replace(self.order, content=self.path.read_bytes())


@dataclass
class Book:
    """Every job of a run, and every answer of the API that no fault excuses. For many threads.

    Once ``closed``, nobody waits for any job any more.
    """

    folder: Path
    entries: dict[str, Entry] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)
    _answered: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, tenant: str, batch: Batch, order: Order) -> None:
        """A job was accepted: from here on it must not be lost."""
        path = self.folder / f"{batch.id}.jsonl"
        path.write_bytes(order.content)
        entry = Entry(tenant, batch.id, path, replace(order, content=b""))
        with self._lock:
            self.entries[batch.id] = entry

    def ended(self, evidence: Evidence) -> None:
        """A job has ended with these files."""
        batch_id = evidence.batch["id"]
        with self._lock:
            self.entries[batch_id] = replace(self.entries[batch_id], hashes=evidence.hashes)

    def saw(self, batch: Batch) -> None:
        """How far a job is."""
        counts = batch.request_counts
        with self._lock:
            self._answered[batch.id] = counts.completed if counts else 0

    @property
    def lines(self) -> int:
        """Lines that have an answer, as far as the customers have seen."""
        with self._lock:
            return sum(self._answered.values())

    def complain(self, what: str) -> None:
        """An answer that no fault excuses."""
        with self._lock:
            self.refused.append(what)

    @property
    def open(self) -> list[Entry]:
        """Jobs that were accepted and are not known to have ended."""
        with self._lock:
            return [entry for entry in self.entries.values() if entry.hashes is None]


class Customer(threading.Thread):
    """Runs jobs until ``closing`` is set, and then its last one to the end."""

    def __init__(
        self,
        tenant: Tenant,
        book: Book,
        seed: str,
        closing: threading.Event,
        sizes: Sequence[int],
        tokens: tuple[int, int],
    ) -> None:
        super().__init__(name=f"customer {seed}", daemon=True)
        self._tenant, self._book, self._closing = tenant, book, closing
        self._random = random.Random(seed)
        self._sizes, self._tokens = sizes, tokens

    def run(self) -> None:
        """See the class."""
        while not self._closing.is_set():
            try:
                self._job()
            except (openai.OpenAIError, httpx.HTTPError, TimeoutError) as error:
                self._book.complain(f"{self._tenant.name}: {error!r}")

    def _job(self) -> None:
        source = self._random
        order = make_order(source, source.choice(self._sizes), tokens=self._tokens)
        batch = self._tenant.submit(order)
        self._book.add(self._tenant.name, batch, order)
        whim = source.random()
        turning_point = source.uniform(0, 0.8) * len(order.ids)
        if whim < CANCEL_SHARE:
            self._watch(batch.id, lambda b: done(b) >= turning_point)
            self._told(batch.id, "cancel")
        elif whim < CANCEL_SHARE + PAUSE_SHARE:
            self._watch(batch.id, lambda b: done(b) >= turning_point)
            self._told(batch.id, "pause")
            time.sleep(source.uniform(1, 8))
            self._told(batch.id, "resume")
        ended = self._watch(batch.id)
        self._file(batch.id, order)
        if ended.status == "cancelled" and source.random() < RETRY_SHARE:
            self._retry(batch.id, order)

    def _retry(self, batch_id: str, order: Order) -> None:
        failed = collect(self._tenant.witness, batch_id, order.content).errors
        if failed is None:
            return
        again = order.only(failed.ids)
        batch = self._tenant.tell(batch_id, "retry")
        self._book.add(self._tenant.name, batch, again)
        self._watch(batch.id)
        self._file(batch.id, again)

    def _watch(self, batch_id: str, far: Callable[[Batch], bool] = lambda _: False) -> Batch:
        """Wait until a batch is so far or has ended."""

        def reached(batch: Batch) -> bool:
            if self._book.closed.is_set():
                raise TimeoutError(f"{batch_id} was left in the state {batch.status}")
            self._book.saw(batch)
            return far(batch) or batch.status in ENDED

        return self._tenant.wait(batch_id, reached, seconds=JOB_SECONDS)

    def _told(self, batch_id: str, order: str) -> None:
        """Tell a batch something; that it has ended meanwhile is no fault."""
        try:
            self._tenant.tell(batch_id, order)
        except (openai.BadRequestError, openai.ConflictError):
            if self._tenant.batch(batch_id).status not in ENDED | {"finalizing", "cancelling"}:
                raise

    def _file(self, batch_id: str, order: Order) -> None:
        self._book.ended(collect(self._tenant.witness, batch_id, order.content))


ENDED = frozenset({"completed", "failed", "cancelled", "expired"})
JOB_SECONDS = 900.0


@dataclass
class Tally:
    """The verdicts over every job of a run."""

    jobs: int = 0
    lines: int = 0
    answered: int = 0
    false_poison: int = 0
    broken: Counter[str] = field(default_factory=Counter)
    details: list[str] = field(default_factory=list)

    def add(self, verdict: Verdict) -> None:
        """Count one more job."""
        self.jobs += 1
        self.lines += verdict.lines
        self.answered += verdict.answered
        self.false_poison += verdict.false_poison
        for violation in verdict.violations:
            self.broken[violation.kind] += violation.count
            self.details.append(f"{violation.batch}: {violation.kind}: {violation.detail}")


def judge_all(book: Book, witnesses: Sequence[Witness]) -> Tally:
    """The checker over every job that was ever accepted, against what it was when it ended."""
    tally = Tally()
    owners = {witness.name: witness for witness in witnesses}
    for entry in list(book.entries.values()):
        order = entry.full
        evidence = collect(
            owners[entry.tenant],
            entry.batch_id,
            order.content,
            strangers=[one for one in witnesses if one.name != entry.tenant],
            refusals=order.refusals,
            earlier=entry.hashes,
        )
        tally.add(judge(evidence, tiny.answer))
    return tally
