"""Rows of files: their tenants, their lists, and their ends."""

from collections.abc import Callable
from typing import Any

import pytest

from storage.database.connection import Database
from storage.errors import NotFound
from storage.registry import files
from storage.registry.files import NewFile

MakeFile = Callable[..., NewFile]


def ids(database: Database, **query: Any) -> list[str]:
    return [file.id for file in files.list_files(database, "acme", **query).items]


def test_a_file_is_its_tenants(database: Database, new_file: MakeFile) -> None:
    new = new_file(filename="päth.jsonl", bytes=5_000_000_000)
    made = files.insert(database, new)
    found = files.get(database, "acme", new.id)
    assert found == made
    assert (found.filename, found.bytes, found.expires_at) == (new.filename, new.bytes, None)
    for use in (files.get, files.soft_delete):
        with pytest.raises(NotFound):
            use(database, "other", new.id)
    assert files.list_files(database, "other").items == []


def test_inserting_the_same_file_again_is_harmless(database: Database, new_file: MakeFile) -> None:
    new = new_file()
    assert files.insert(database, new) == files.insert(database, new)


def test_deleted_files_are_gone(database: Database, new_file: MakeFile) -> None:
    new = new_file()
    files.insert(database, new)
    assert files.soft_delete(database, "acme", new.id).object_key == new.object_key
    for use in (files.get, files.soft_delete):
        with pytest.raises(NotFound):
            use(database, "acme", new.id)
    assert ids(database) == []


def test_expired_files_are_gone_and_swept_once(database: Database, new_file: MakeFile) -> None:
    old, young = new_file(expires_after=0.0), new_file(expires_after=60.0)
    files.insert(database, old)
    files.insert(database, young)
    with pytest.raises(NotFound):
        files.get(database, "acme", old.id)
    assert ids(database) == [young.id]
    for _ in range(2):  # until its object is known to be gone
        assert [file.object_key for file in files.overdue(database)] == [old.object_key]
    assert files.overdue(database, after=old.id) == []
    files.mark_expired(database, old.id)
    assert files.overdue(database) == []
    assert ids(database) == [young.id]


def test_lists_go_page_by_page_in_both_orders(database: Database, new_file: MakeFile) -> None:
    made = [files.insert(database, new_file()).id for _ in range(5)]
    assert ids(database, order="asc") == made
    assert ids(database) == made[::-1]
    page = files.list_files(database, "acme", limit=2, order="asc")
    assert ([file.id for file in page.items], page.has_more) == (made[:2], True)
    page = files.list_files(database, "acme", limit=3, order="asc", after=made[1])
    assert ([file.id for file in page.items], page.has_more) == (made[2:], False)
    assert ids(database, limit=2, after=made[3]) == made[1:3][::-1]
    assert ids(database, after=made[0]) == []


def test_a_list_goes_on_after_a_deleted_file(database: Database, new_file: MakeFile) -> None:
    made = [files.insert(database, new_file()).id for _ in range(3)]
    files.soft_delete(database, "acme", made[1])
    assert ids(database, after=made[1]) == [made[0]]
    with pytest.raises(NotFound):
        ids(database, after="file-missing")
    with pytest.raises(NotFound):
        files.list_files(database, "other", after=made[0])


def test_lists_by_purpose(database: Database, new_file: MakeFile) -> None:
    batch = files.insert(database, new_file()).id
    output = files.insert(database, new_file(purpose="batch_output")).id
    assert ids(database, purpose="batch") == [batch]
    assert ids(database, purpose="batch_output") == [output]
    assert ids(database, purpose="vision") == []
