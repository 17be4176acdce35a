"""The time that an engine is at work, shared among the chunks that it runs."""

import time
from collections.abc import Iterable

from storage.estimates.engine_time import shares
from worker.models.engines import Resident
from worker.run.held_chunks import HeldChunk


class EngineClock:
    """Reads how long an engine was at work, and how many steps it took. For one thread.

    The time between two readings is shared among the chunks whose requests the engine had in hand
    then, so every second at work belongs to some chunk, and none to two.
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._steps = 0

    def start(self, resident: Resident, chunks: Iterable[HeldChunk]) -> None:
        """More work is about to be handed over: where there was none, time begins now."""
        if not any(held.at_work for held in chunks):
            self._since = time.monotonic()
            self._steps = resident.engine.stats().steps

    def read(self, resident: Resident, chunks: Iterable[HeldChunk]) -> None:
        """Share what has passed since the last reading; before what came meanwhile is taken."""
        at_work = [held for held in chunks if held.at_work]
        now, steps = time.monotonic(), resident.engine.stats().steps
        pending = [held.run.pending for held in at_work]
        for held, share in zip(at_work, shares(pending, resident.info.max_num_seqs), strict=True):
            held.seconds += share * (now - self._since)
            held.steps += share * max(0, steps - self._steps)
        self._since, self._steps = now, steps
