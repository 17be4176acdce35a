"""The points where time passes and faults strike: before and after each transaction and call."""

import sys
from collections.abc import Callable

from simulation.virtual.faults import Fault, Faults
from simulation.virtual.scheduler import Scheduler

# Around these, a death or a pause does the most harm.
HOT = (
    "commit_chunk",
    "commit_final",
    "commit_plan",
    "complete_estimate",
    "crash_chunk",
    "put parts/",
    "put results/",
    "put plans/",
    "settle_shard",
    "close_output",
    "put places/",
)
FREEZES = (20.0, 60.0, 150.0, 400.0)  # seconds; a lease lasts 45
_PASSED_OVER = frozenset({"settle", "_session", "read", "write", "change"})


class Points:
    """Decides what happens at each point of a run.

    Attributes:
        active: whether there are faults.
        lone: whether only one worker is awake; it is not frozen then, or nothing would go on.
        struck: how many faults there were.
    """

    def __init__(self, scheduler: Scheduler, faults: Faults) -> None:
        self._scheduler = scheduler
        self._random = scheduler.random
        self.faults = faults
        self.active = True
        self.lone: Callable[[], bool] = lambda: False
        self.struck = 0

    @property
    def now(self) -> float:
        """The present time: seconds since the epoch."""
        return self._scheduler.now

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self._scheduler.note(what)

    @staticmethod
    def caller() -> str:
        """The function of the product that asks for a session."""
        frame = sys._getframe(2)
        while frame.f_back is not None:
            name = frame.f_globals.get("__name__", "")
            if (
                name.startswith(("storage.", "worker.", "simulation."))
                and name != "simulation.virtual.database"
                and frame.f_code.co_name not in _PASSED_OVER
            ):
                return frame.f_code.co_qualname
            frame = frame.f_back
        return "?"

    def before(self, what: str) -> bool:
        """Whether the call fails without effect."""
        self._scheduler.sleep(self._latency())
        return self._strike(what, "before")

    def after(self, what: str) -> bool:
        """Whether the answer to a call that took effect is lost."""
        self._scheduler.sleep(self._latency() * 0.5)
        return self._strike(what, "after")

    def dice(self, chance: float) -> bool:
        """Whether something of this chance happens, while there are faults."""
        return self.active and chance > 0 and self._random.random() < chance

    def _latency(self) -> float:
        return 0.001 + 0.02 * self._random.random()

    def _strike(self, what: str, when: str) -> bool:
        fault = self._draw(what)
        if fault is None:
            return False
        scheduler, process = self._scheduler, self._scheduler.task.process
        scheduler.note(f"{fault} {when} {what}")
        self.struck += 1
        match fault:
            case Fault.KILL:
                scheduler.kill(process)
                scheduler.park()
            case Fault.FREEZE:
                seconds = self._random.choice(FREEZES) * self._random.uniform(0.8, 1.2)
                scheduler.freeze(process, seconds, unnoticed=self.dice(self.faults.blind))
                scheduler.sleep(0.0)
            case Fault.SLOW:
                scheduler.sleep(self._random.choice((2.0, 8.0, 30.0)))
            case Fault.FAIL:
                return True
        return False

    def _draw(self, what: str) -> Fault | None:
        if not self.active or self.struck >= self.faults.most:
            return None
        faults = self.faults
        chance = self._random.random()
        if any(hot in what for hot in HOT):
            # A job has one of these and many of the others.
            chance /= faults.hot * (2.0 if "put results/" in what else 1.0)
        faulty = self._scheduler.task.process.faulty
        lone = faulty and self.lone()
        kinds = (
            (Fault.KILL, faults.kill if faulty else 0.0),
            (Fault.FREEZE, faults.freeze if faulty and not lone else 0.0),
            (Fault.FAIL, faults.fail),
            (Fault.SLOW, faults.slow),
        )
        for kind, share in kinds:
            if chance < share:
                return kind
            chance -= share
        return None
