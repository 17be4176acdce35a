"""Wake-ups over a real Valkey that is flushed, restarted and away."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from kombu.transport.redis import QoS

from stack.servers import Valkey
from storage.broker import SILENT_SECONDS, CeleryWakeups, celery_app
from storage.settings import StorageSettings
from storage.wakeups import Wakeup, Wakeups
from worker.context import WorkerContext
from worker.process.celery_listener import Listener, add_tasks

pytestmark = [pytest.mark.servers, pytest.mark.slow]


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey")
    server.start()
    try:
        yield server
    finally:
        server.kill()


Listen = Callable[[Valkey], threading.Semaphore]


@pytest.fixture
def listen(make_bench: Any) -> Iterator[Listen]:
    """Listens with a worker of its own; the semaphore counts the wake-ups that it heard."""
    listeners: list[Listener] = []

    def start(valkey: Valkey) -> threading.Semaphore:
        bench = make_bench(broker_url=valkey.url)
        worker: WorkerContext = bench.worker
        wakes = threading.Semaphore(0)
        app = celery_app(worker.settings.storage)
        app.conf.worker_enable_remote_control = False
        add_tasks(app, worker, wakes.release)
        listener = Listener(app, worker, ["smollm2"])
        listeners.append(listener)
        listener.start()
        return wakes

    yield start
    for listener in listeners:
        listener.stop(5)


def _heard(wakeups: Wakeups, wakes: threading.Semaphore, wakeup: Wakeup, seconds: float) -> bool:
    """Send a wake-up until one is heard, for at most so many seconds; whether it was."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        wakeups.send(wakeup)
        if wakes.acquire(timeout=0.5):
            return True
    return False


def test_every_kind_of_wakeup_is_heard_and_flushing_breaks_none(
    valkey: Valkey, listen: Listen
) -> None:
    wakeups = CeleryWakeups(celery_app(StorageSettings(broker_url=valkey.url)))
    wakes = listen(valkey)
    every = (
        Wakeup.plan("batch_1"),
        Wakeup.finalize("batch_1"),
        Wakeup.drain("smollm2"),
        Wakeup.reconcile(),
    )
    for wakeup in every:
        assert _heard(wakeups, wakes, wakeup, 30)
    for _ in range(3):
        valkey.flush()
        while wakes.acquire(timeout=0.1):
            pass
        for wakeup in every:
            # One wake-up each, no second chance: the queue and its bindings are gone by now.
            wakeups.send(wakeup)
            assert wakes.acquire(timeout=10)


def test_a_restart_is_survived_and_nobody_waits_meanwhile(valkey: Valkey, listen: Listen) -> None:
    wakeups = CeleryWakeups(celery_app(StorageSettings(broker_url=valkey.url)))
    wakes = listen(valkey)
    assert _heard(wakeups, wakes, Wakeup.plan("batch_1"), 30)
    valkey.kill()
    began = time.monotonic()
    for _ in range(100):
        wakeups.send(Wakeup.plan("batch_1"))
    assert time.monotonic() - began < SILENT_SECONDS, "only the first was tried"
    valkey.start()
    assert _heard(wakeups, wakes, Wakeup.plan("batch_1"), 30)


def test_an_acknowledgement_that_is_lost_with_its_connection_leaves_no_deaf_listener(
    valkey: Valkey, listen: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledge: Callable[[Any, str], None] = QoS.ack
    lost = threading.Event()

    def lose_the_first(self: Any, tag: str) -> None:
        if lost.is_set():
            acknowledge(self, tag)
            return
        lost.set()
        raise redis.exceptions.ConnectionError("Connection reset by peer")

    monkeypatch.setattr(QoS, "ack", lose_the_first)
    wakeups = CeleryWakeups(celery_app(StorageSettings(broker_url=valkey.url)))
    wakes = listen(valkey)
    assert _heard(wakeups, wakes, Wakeup.plan("batch_1"), 30)
    assert lost.is_set()
    while wakes.acquire(timeout=0.1):
        pass
    assert _heard(wakeups, wakes, Wakeup.plan("batch_2"), 30)


def test_a_listener_may_start_before_its_broker(valkey: Valkey, listen: Listen) -> None:
    valkey.kill()
    wakes = listen(valkey)
    time.sleep(0.5)
    valkey.start()
    wakeups = CeleryWakeups(celery_app(StorageSettings(broker_url=valkey.url)))
    assert _heard(wakeups, wakes, Wakeup.drain("smollm2"), 30)


def test_one_that_is_stopped_while_it_starts_does_not_listen_for_ever(
    valkey: Valkey, make_bench: Any
) -> None:
    bench = make_bench(broker_url=valkey.url)
    app = celery_app(bench.worker.settings.storage)
    app.conf.worker_enable_remote_control = False
    listener = Listener(app, bench.worker, ["smollm2"])
    threads = set(threading.enumerate())
    listener.start()
    (thread,) = set(threading.enumerate()) - threads
    listener.stop(0)
    thread.join(30)
    assert not thread.is_alive()
