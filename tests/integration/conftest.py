"""Services that end with their test."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.support import Up


@pytest.fixture
def make_up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    started: list[Up] = []

    def make(**settings: str) -> Up:
        up = Up(tmp_path / f"home{len(started)}", **settings).start()
        started.append(up)
        return up

    yield make
    for up in started:
        if up.process is not None:
            up.signal(signal.SIGTERM)
