"""Leases: renewed while work goes on, given up in time when they cannot be."""

import threading
import time

import pytest

from storage.errors import DatabaseUnavailable
from storage.states import StopReason
from worker.errors import LeaseLost
from worker.lease import MARGIN_SECONDS, Lease, LeaseKeeper, Renewal


def _away() -> Renewal:
    raise DatabaseUnavailable


def test_a_lease_that_the_database_denies_is_lost_at_once() -> None:
    lease = Lease("x", lambda: Renewal(False), seconds=60, since=time.monotonic())
    lease.check()
    lease.renew()
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_lease_that_cannot_be_renewed_is_given_up_before_it_ends() -> None:
    now = time.monotonic()
    early = Lease("x", _away, seconds=60, since=now - 60 + MARGIN_SECONDS + 5)
    late = Lease("x", _away, seconds=60, since=now - 60 + MARGIN_SECONDS - 0.1)
    early.renew()
    late.renew()
    assert not early.lost
    assert late.lost


def test_a_renewal_counts_from_before_it_was_sent() -> None:
    def slow() -> Renewal:
        time.sleep(0.25)
        return Renewal(True)

    lease = Lease("x", slow, seconds=0.3, since=time.monotonic())
    lease.renew()
    assert lease.lost


def test_a_lost_lease_stays_lost() -> None:
    answers = iter([Renewal(False), Renewal(True)])
    lease = Lease("x", lambda: next(answers), seconds=60, since=time.monotonic())
    lease.renew()
    lease.renew()
    assert lease.lost


def test_the_keeper_survives_whatever_a_renewal_raises() -> None:
    renewed = threading.Semaphore(0)

    def broken() -> Renewal:
        renewed.release()
        raise RuntimeError("a bug")

    def renew() -> Renewal:
        renewed.release()
        return Renewal(True)

    with LeaseKeeper(0.01) as keeper:
        for name, way in (("broken", broken), ("sound", renew)):
            keeper.hold(Lease(name, way, seconds=60, since=time.monotonic()))
        for _ in range(6):
            assert renewed.acquire(timeout=5)


def test_the_keeper_renews_until_it_is_told_to_drop_and_passes_on_the_stop() -> None:
    renewed = threading.Semaphore(0)

    def renew() -> Renewal:
        renewed.release()
        return Renewal(True, StopReason.CANCELLED)

    lease = Lease("x", renew, seconds=60, since=time.monotonic())
    with LeaseKeeper(0.01) as keeper:
        keeper.hold(lease)
        for _ in range(3):
            assert renewed.acquire(timeout=5)
        keeper.drop(lease)
        assert lease.stop is StopReason.CANCELLED
    assert not lease.lost
