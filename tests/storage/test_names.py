"""Ids and object keys."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.ids import new_id
from storage.objects import object_keys
from storage.objects.base import check_key


def test_ids_have_their_kinds_prefix() -> None:
    assert new_id("batch").startswith("batch_")
    assert new_id("chunk").startswith("chunk_")
    assert new_id("file").startswith("file-")
    assert len(new_id("file")) == len("file-") + 26


def test_ids_sort_by_their_time() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id("batch"))
        time.sleep(0.002)
    assert ids == sorted(ids)


def test_ids_differ() -> None:
    assert len({new_id("chunk") for _ in range(10_000)}) == 10_000


def test_every_attempt_and_epoch_has_its_own_key() -> None:
    assert object_keys.part("batch_1", 0, 128, 1) == "parts/batch_1/0-128/1.jsonl"
    assert object_keys.plan("batch_1", 2, 0, 128) == "plans/batch_1/2/0-128.arrow"
    assert object_keys.result("batch_1", 3, "output") == "results/batch_1/3/output.jsonl"
    assert object_keys.part("b", 0, 1, 1).startswith(object_keys.parts("b"))
    assert object_keys.plan("b", 1, 0, 1).startswith(object_keys.plans("b"))


@given(st.text(min_size=1, max_size=60))
def test_any_tenant_makes_a_usable_key(tenant: str) -> None:
    try:
        tenant.encode()
    except UnicodeEncodeError:
        return
    key = object_keys.upload(tenant, "file-1")
    check_key(key)
    assert key.count("/") == 2


@pytest.mark.parametrize(("one", "other"), [("a/b", "a%2Fb"), ("..", "%2E%2E"), ("A", "a")])
def test_tenants_never_share_a_key(one: str, other: str) -> None:
    assert object_keys.upload(one, "f") != object_keys.upload(other, "f")
