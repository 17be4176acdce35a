"""Launches that come again and again: run as they are first, recorded next, then replayed.

The first run compiles kernels and lets libraries take their memory, which a recording must not.
"""

import logging
from collections.abc import Hashable

from engine.kernels.fused.device import Device, Graph, Launches

log = logging.getLogger(__name__)


class Recorded:
    """Graphs by key.

    Args:
        device: runs them.
        enabled: whether anything is recorded at all.
        most: graphs that are kept; work beyond them is submitted as it is.
    """

    def __init__(self, device: Device, *, enabled: bool = True, most: int = 4096) -> None:
        self._device = device
        self._enabled = enabled
        self._most = most
        self._seen: set[Hashable] = set()
        self._graphs: dict[Hashable, Graph] = {}

    def run(self, key: Hashable, work: Launches) -> None:
        """Submit work.

        Args:
            key: equal for equal launches; the work then differs in nothing but what its tensors,
                at the same addresses, hold.
            work: the launches. They allocate nothing that is used after them.
        """
        graph = self._graphs.get(key)
        if graph is None and key in self._seen and len(self._graphs) < self._most:
            graph = self._record(key, work)
        if graph is not None:
            graph.replay()
            return
        self._device.submit(work)
        if self._enabled:
            self._seen.add(key)

    def _record(self, key: Hashable, work: Launches) -> Graph | None:
        try:
            graph = self._graphs[key] = self._device.record(work)
        except RuntimeError as error:
            # Most likely the driver has no memory for another graph: go on with those there are.
            self._most = len(self._graphs)
            log.warning("No more graphs than %d are recorded: %s", self._most, error)
            return None
        return graph

    def __len__(self) -> int:
        """Graphs so far."""
        return len(self._graphs)
