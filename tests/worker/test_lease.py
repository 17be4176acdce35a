"""Leases: renewed while work goes on, given up in time when they cannot be."""

import threading
import time

import pytest

from storage.database.states import StopReason
from storage.errors import DatabaseUnavailable
from worker.errors import LeaseLost
from worker.lease import CLOSE_SECONDS, MARGIN_SECONDS, Lease, LeaseKeeper, Renewal


def _away() -> Renewal:
    raise DatabaseUnavailable


def test_a_lease_that_the_database_denies_is_lost_at_once() -> None:
    lease = Lease("x", seconds=60, since=time.monotonic())
    lease.check()
    lease.renew(lambda: Renewal(False))
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_ends() -> None:
    now = time.monotonic()
    early = Lease("x", seconds=60, since=now - 60 + MARGIN_SECONDS + 5)
    late = Lease("x", seconds=60, since=now - 60 + MARGIN_SECONDS - 0.1)
    with pytest.raises(DatabaseUnavailable):
        early.renew(_away)
    late.renew(_away)  # not even asked
    assert not early.lost
    assert late.lost


def test_a_renewal_counts_from_before_it_was_sent() -> None:
    def slow() -> Renewal:
        time.sleep(0.25)
        return Renewal(True)

    lease = Lease("x", seconds=0.3, since=time.monotonic())
    lease.renew(slow)
    assert lease.lost


def test_a_lost_lease_stays_lost() -> None:
    lease = Lease("x", seconds=60, since=time.monotonic())
    lease.renew(lambda: Renewal(False))
    lease.renew(lambda: Renewal(True))
    assert lease.lost


def test_the_keeper_survives_whatever_it_is_to_call() -> None:
    called = threading.Semaphore(0)

    def broken() -> None:
        called.release()
        raise RuntimeError("a bug")

    def away() -> None:
        called.release()
        _away()

    for keep in (broken, away):
        with LeaseKeeper(0.01, keep):
            for _ in range(4):
                assert called.acquire(timeout=5)


def test_a_keeper_that_hangs_holds_up_nobody() -> None:
    entered, leave = threading.Event(), threading.Event()

    def hang() -> None:
        entered.set()
        leave.wait(timeout=30)

    started = time.monotonic()
    with LeaseKeeper(0.01, hang):
        assert entered.wait(timeout=5)
    assert time.monotonic() - started < CLOSE_SECONDS + 3
    leave.set()


def test_a_renewal_passes_on_that_the_job_is_to_stop() -> None:
    lease = Lease("x", seconds=60, since=time.monotonic())
    lease.renew(lambda: Renewal(True, StopReason.CANCELLED))
    assert lease.stop is StopReason.CANCELLED
    lease.renew(lambda: Renewal(True))
    assert lease.stop is StopReason.CANCELLED
    assert not lease.lost
