"""Leases: renewed while the work goes on, and given up when they may have ended.

A lease is lost when the database says so, or when no renewal has succeeded for so long that another
worker may hold it by now. The latter is judged by this machine's monotonic clock, with a margin.
Once a lease is lost, nothing may be written under it.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType

import structlog

from storage.database.states import StopReason
from storage.errors import StorageError
from worker.errors import LeaseLost

log = structlog.get_logger(__name__)

MARGIN_SECONDS = 5.0
CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Renewal:
    """Whether the lease is still held, and why the job is to stop, if it is."""

    held: bool
    stop: StopReason | None = None


class Lease:
    """One lease. The keeper's thread renews it; the working thread asks `check` before it writes.

    Args:
        name: for the log.
        seconds: how long a renewal lasts.
        since: monotonic time *before* the claim was sent.
    """

    def __init__(self, name: str, *, seconds: float, since: float) -> None:
        self.name = name
        self._safe_seconds = seconds - min(MARGIN_SECONDS, seconds / 3)
        self._renewed_at = since
        self._gone = False
        self.stop: StopReason | None = None

    @property
    def lost(self) -> bool:
        """Whether nothing may be written under this lease any more."""
        return self._gone or time.monotonic() > self._renewed_at + self._safe_seconds

    def check(self) -> None:
        """Raise `LeaseLost` if it is lost."""
        if self.lost:
            raise LeaseLost(f"The lease of {self.name} was lost.")

    def renew(self, ask: Callable[[], Renewal]) -> None:
        """Renew by calling ``ask``, unless it is lost already. Raises what ``ask`` raises."""
        if not self.lost:
            before = time.monotonic()
            self.renewed(ask(), before)

    def renewed(self, renewal: Renewal, asked_at: float) -> None:
        """Note what a renewal found that was sent at ``asked_at`` (monotonic seconds)."""
        if not renewal.held:
            # Not worth a warning: its work may just have been committed.
            self._gone = True
            log.debug("lease_not_held", lease=self.name)
            return
        self._renewed_at = asked_at
        self.stop = renewal.stop or self.stop


class LeaseKeeper:
    """A thread that calls ``keep`` every few seconds while the context lasts.

    An error is logged, and the next call follows all the same: only time makes it a loss.
    """

    def __init__(self, every_seconds: float, keep: Callable[[], None]) -> None:
        self._every = every_seconds
        self._keep = keep
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        # If it waits for a database that hangs, it is left behind: a late renewal does no harm.
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            try:
                self._keep()
            except StorageError as error:
                log.warning("leases_not_renewed", reason=error.code)
            except Exception:
                # Whatever it is, go on: only time makes it a loss.
                log.exception("leases_not_renewed")
