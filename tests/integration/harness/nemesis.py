"""A seeded schedule of faults against a running stack: at most two at once, each undone in time.

A seed chooses the same faults in the same order; what they hit depends on the moment.
"""

import random
import threading
from collections import Counter
from collections.abc import Sequence

from integration.harness.faults import EVERYTHING, KINDS, Trouble, Victims, make

AT_ONCE = 2
JOIN_SECONDS = 90.0


class Nemesis:
    """Strikes from `start` to `stop`, in threads of its own.

    Attributes:
        struck: how often each kind of fault hit.
        failures: what went wrong with the faults themselves.
    """

    def __init__(
        self,
        victims: Victims,
        seed: int,
        *,
        gap: tuple[float, float] = (0.5, 5.0),
        kinds: Sequence[str] = tuple(KINDS),
    ) -> None:
        """``gap`` bounds the seconds between the beginnings of two faults."""
        self._victims = victims
        self._random = random.Random(seed)
        self._gap = gap
        self._kinds = kinds
        self._stopping = threading.Event()
        self._active: dict[str, threading.Thread] = {}
        self._thread = threading.Thread(target=self._run, name="nemesis", daemon=True)
        self.struck: Counter[str] = Counter()
        self.failures: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Undo every fault; what was killed runs again afterwards, or is about to."""
        self._stopping.set()
        for thread in (self._thread, *self._active.values()):
            thread.join(JOIN_SECONDS)
            if thread.is_alive():
                self.failures.append(f"{thread.name} did not end")

    def _run(self) -> None:
        weights = [KINDS[kind][0] for kind in self._kinds]
        while not self._stopping.wait(self._random.uniform(*self._gap)):
            (kind,) = self._random.choices(self._kinds, weights)
            trouble = make(kind, self._victims, self._random)
            if self._possible(trouble):
                thread = threading.Thread(
                    target=self._strike, args=(trouble,), name=kind, daemon=True
                )
                self._active[trouble.target] = thread
                thread.start()

    def _possible(self, trouble: Trouble) -> bool:
        """Whether it may happen beside what is going on."""
        for target, thread in list(self._active.items()):
            if not thread.is_alive():
                del self._active[target]
        if EVERYTHING in (trouble.target, *self._active):
            return not self._active
        return trouble.target not in self._active and len(self._active) < AT_ONCE

    def _strike(self, trouble: Trouble) -> None:
        try:
            if trouble.begin():
                self.struck[trouble.kind] += 1
                self._stopping.wait(trouble.seconds)
        except Exception as error:  # noqa: BLE001 - whatever it is, the fault must be undone
            self.failures.append(f"{trouble.kind}: {error!r}")
        try:
            trouble.heal()
        except Exception as error:  # noqa: BLE001 - told with the result
            self.failures.append(f"undoing {trouble.kind}: {error!r}")
