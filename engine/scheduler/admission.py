"""When waiting requests may join the running batch."""

from collections.abc import Callable
from time import monotonic
from typing import Protocol


class AdmissionPolicy(Protocol):
    """Decides how many waiting sequences may be admitted in this step."""

    def quota(self, *, waiting: int, running: int, flushed: bool) -> int:
        """Most sequences to admit now. ``flushed`` says that no more input comes soon."""
        ...

    def admitted(self) -> None:
        """One of the quota was admitted."""
        ...

    def returned(self) -> None:
        """One that was admitted had to go back to the queue; its place in the batch stays its."""
        ...


class Continuous:
    """Iteration-level scheduling (Orca, Yu et al., OSDI 2022): a free place is filled at once."""

    def __init__(self, max_num_seqs: int) -> None:
        self._max_num_seqs = max_num_seqs

    def quota(self, *, waiting: int, running: int, flushed: bool) -> int:
        """See `AdmissionPolicy.quota`."""
        return min(waiting, self._max_num_seqs - running)

    def admitted(self) -> None:
        """See `AdmissionPolicy.admitted`."""

    def returned(self) -> None:
        """See `AdmissionPolicy.returned`."""


class Static:
    """A batch is filled, run until its last request ends, then the next one is.

    With a ``timeout`` (seconds that requests wait while nothing runs) this is dynamic batching: a
    batch that does not fill in time starts with what there is.
    """

    def __init__(
        self,
        batch_size: int,
        timeout: float | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._batch_size = batch_size
        self._timeout = timeout
        self._clock = clock
        self._open = 0
        self._waiting_since: float | None = None

    def quota(self, *, waiting: int, running: int, flushed: bool) -> int:
        """See `AdmissionPolicy.quota`."""
        if waiting == 0:
            self._open, self._waiting_since = 0, None
        elif running == 0 and self._open == 0 and self._ready(waiting, flushed):
            self._open = min(waiting, self._batch_size)
            self._waiting_since = None
        return min(waiting, self._open)

    def admitted(self) -> None:
        """See `AdmissionPolicy.admitted`."""
        self._open -= 1

    def returned(self) -> None:
        """See `AdmissionPolicy.returned`."""
        self._open += 1

    def _ready(self, waiting: int, flushed: bool) -> bool:
        if waiting >= self._batch_size or flushed:
            return True
        if self._timeout is None:
            return False
        now = self._clock()
        if self._waiting_since is None:
            self._waiting_since = now
        return now - self._waiting_since >= self._timeout
