"""A database file that cannot be used: said in one line, by its path and the cause, and at once."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.database import connection
from storage.database.connection import Database
from storage.database.startup import bring_up
from storage.errors import DatabaseLocked, DatabaseUnusable
from storage.registry import models


def _garbage(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 40)


def _text(path: Path) -> None:
    path.write_text("hello\n")


def _folder(path: Path) -> None:
    path.mkdir()


def _unreadable(path: Path) -> None:
    path.symlink_to(path.name)  # as root is kept from nothing, a link to itself


def _damaged(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)


def _cut_off(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\0" + b"\0" * 100)


def _newer(path: Path) -> None:
    database = Database(f"sqlite:///{path}")
    database.migrate()
    database.close()
    _execute(path, "UPDATE alembic_version SET version_num = '9999_later'")


def _of_another_program(path: Path) -> None:
    _execute(path, "CREATE TABLE job (title TEXT)")


def _execute(path: Path, statement: str) -> None:
    raw = sqlite3.connect(path)
    raw.execute(statement)
    raw.commit()
    raw.close()


CAUSES: dict[Callable[[Path], None], str] = {
    _garbage: "is not a SQLite database",
    _text: "is not a SQLite database",
    _folder: "is a folder",
    _unreadable: "cannot be used",
    _damaged: "is damaged",
    _cut_off: "is damaged",
    _newer: "is that of a newer version",
    _of_another_program: "is that of another program",
}


@pytest.mark.parametrize("make", CAUSES)
def test_it_is_told_in_one_line(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "tidemill.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    database = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnusable) as told:
        bring_up(database, seconds=60)  # it does not wait for it to mend itself
    database.close()
    message = str(told.value)
    assert str(path) in message
    assert CAUSES[make] in message
    assert "\n" not in message
    if make is not _of_another_program:
        assert before == (path.read_bytes() if path.is_file() else None), "it is left as it was"


@pytest.mark.parametrize("parents", [("file",), ("file", "below")])
def test_a_home_that_is_a_file(tmp_path: Path, parents: tuple[str, ...]) -> None:
    (tmp_path / "file").write_text("x")
    path = tmp_path.joinpath(*parents, "tidemill.db")
    database = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseUnusable, match=f"folder of the database {path}"):
        database.migrate()


def test_a_file_of_zero_bytes_is_an_empty_database(tmp_path: Path) -> None:
    path = tmp_path / "tidemill.db"
    path.touch()
    database = Database(f"sqlite:///{path}")
    database.migrate()
    assert models.list_models(database) == []
    database.close()


def test_a_file_that_another_program_has_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BUSY_SECONDS", 0.05)
    path = tmp_path / "tidemill.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    database = Database(f"sqlite:///{path}")
    with pytest.raises(DatabaseLocked, match=f"{path} has been locked by another program"):
        bring_up(database, seconds=0.2)
    other.execute("ROLLBACK")
    other.close()
    assert bring_up(database, seconds=0.2)
    database.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
@pytest.mark.parametrize("mode", [0o000, 0o400])
def test_a_file_without_rights(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "tidemill.db"
    path.touch(mode)
    with pytest.raises(DatabaseUnusable, match="Permission denied"):
        Database(f"sqlite:///{path}").migrate()
