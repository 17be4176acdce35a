"""Rows of files. No reader finds a deleted or expired one, though its row stays.

A job that is not planned yet has its files to read: they are neither deleted nor collected. Whoever
creates such a job holds the rows (`hold`) while it does, and whoever takes a file away locks its
row first; so of two that come at once, one sees what the other has done.
"""

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from sqlalchemy import ColumnElement, and_, or_, select, tuple_, update
from sqlmodel import Session, col

from storage.database.connection import Database, insert_if_absent, now_sql
from storage.database.states import JobState
from storage.database.tables import File, Job
from storage.errors import FileInUse, NotFound

Order = Literal["asc", "desc"]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of a list, and whether more come after it."""

    items: list[Row]
    has_more: bool


@dataclass(frozen=True, slots=True)
class NewFile:
    """A file whose object is stored already. ``expires_after`` is seconds from its creation."""

    id: str
    tenant_id: str
    purpose: str
    filename: str
    bytes: int
    object_key: str
    etag: str
    sha256: str
    expires_after: float | None = None


def insert(database: Database, new: NewFile) -> File:
    """Add a file's row; the database's clock dates it."""

    def change(session: Session) -> File:
        add(session, new)
        return session.get_one(File, new.id)

    return database.settle(change)


def add(session: Session, new: NewFile) -> None:
    """Add a file's row within a transaction; harmless when the same is added twice."""
    insert_if_absent(
        session,
        File,
        {
            "id": new.id,
            "tenant_id": new.tenant_id,
            "purpose": new.purpose,
            "filename": new.filename,
            "bytes": new.bytes,
            "object_key": new.object_key,
            "etag": new.etag,
            "sha256": new.sha256,
            "created_at": now_sql(),
            "expires_at": None if new.expires_after is None else now_sql() + new.expires_after,
        },
    )


def get(database: Database, tenant_id: str, file_id: str) -> File:
    """A tenant's file, or `NotFound`: deleted, expired and other tenants' files alike."""
    with database.read() as session:
        file = session.scalars(
            select(File).where(col(File.id) == file_id, _readable(tenant_id))
        ).first()
    if file is None:
        raise NotFound(f"There is no file {file_id}.")
    return file


def load(database: Database, file_id: str) -> File:
    """Any tenant's file for the workers, though it has expired; or `NotFound`, if it is deleted."""
    with database.read() as session:
        file = session.get(File, file_id)
    if file is None or file.deleted_at is not None:
        raise NotFound(f"There is no file {file_id}.")
    return file


def hold(session: Session, *file_ids: str) -> bool:
    """Whether all of these can be read; if so, they can be until the session's transaction ends."""
    held = session.scalars(
        select(col(File.id))
        .where(col(File.id).in_(file_ids), _present())
        .order_by(col(File.id))  # in one order everywhere, so that two callers cannot deadlock
        .with_for_update(read=True)
    ).all()
    return set(held) == set(file_ids)


def list_files(
    database: Database,
    tenant_id: str,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int = 10_000,
    order: Order = "desc",
) -> Page[File]:
    """A tenant's files by creation time, from the one after the file ``after``.

    Raises:
        NotFound: ``after`` is no file of this tenant.
    """
    place = tuple_(col(File.created_at), col(File.id))
    query = select(File).where(_readable(tenant_id)).limit(limit + 1)
    if purpose is not None:
        query = query.where(col(File.purpose) == purpose)
    with database.read() as session:
        if after is not None:
            # A file deleted meanwhile still marks its place.
            mark = session.get(File, after)
            if mark is None or mark.tenant_id != tenant_id:
                raise NotFound(f"There is no file {after}.")
            here = tuple_(mark.created_at, mark.id)
            query = query.where(place > here if order == "asc" else place < here)
        ends = (col(File.created_at), col(File.id))
        query = query.order_by(*(end.asc() if order == "asc" else end.desc() for end in ends))
        rows = list(session.scalars(query))
    return Page(rows[:limit], len(rows) > limit)


def soft_delete(database: Database, tenant_id: str, file_id: str) -> File:
    """Mark a file as deleted, and return it so that the caller can delete the object.

    Raises:
        NotFound: the tenant has no such file.
        FileInUse: a batch has yet to read it.
    """
    with database.write() as session:
        file = session.scalars(
            select(File).where(col(File.id) == file_id, _readable(tenant_id)).with_for_update()
        ).first()
        if file is None:
            raise NotFound(f"There is no file {file_id}.")
        reader = _reader_of(session, file_id)
        if reader is not None:
            raise FileInUse(reader)
        return session.scalars(
            update(File)
            .where(col(File.id) == file_id)
            .values(deleted_at=now_sql())
            .returning(File),
            execution_options={"synchronize_session": False, "populate_existing": True},
        ).one()


def overdue(database: Database, *, after: str = "", limit: int = 100) -> list[File]:
    """Expired files whose objects are not deleted yet, by id, after the id ``after``.

    If it is `unread`, delete the object first and call `mark_expired` then, so that an object that
    cannot be deleted now is found again.
    """
    query = (
        select(File)
        .where(
            col(File.expires_at) <= now_sql(), col(File.deleted_at).is_(None), col(File.id) > after
        )
        .order_by(col(File.id))
        .limit(limit)
    )
    with database.read() as session:
        return list(session.scalars(query))


def unread(database: Database, file_id: str) -> bool:
    """Whether no batch has yet to read this expired file; no later one will refer to it."""
    with database.write() as session:
        session.scalars(select(File).where(col(File.id) == file_id).with_for_update()).first()
        return _reader_of(session, file_id) is None


def mark_expired(database: Database, file_id: str) -> None:
    """Note that an expired file's object is deleted."""
    with database.write() as session:
        session.execute(
            update(File)
            .where(col(File.id) == file_id, col(File.deleted_at).is_(None))
            .values(deleted_at=now_sql())
        )


def _readable(tenant_id: str) -> ColumnElement[bool]:
    return and_(col(File.tenant_id) == tenant_id, _present())


def _present() -> ColumnElement[bool]:
    return and_(
        col(File.deleted_at).is_(None),
        or_(col(File.expires_at).is_(None), col(File.expires_at) > now_sql()),
    )


def _reader_of(session: Session, file_id: str) -> str | None:
    """The id of a job that has yet to read the file: as its input, or as what it retries."""
    failed_there = select(col(Job.id)).where(col(Job.err_file_id) == file_id)
    query = select(col(Job.id)).where(
        # One that was stopped before it was planned reads its input when it is finalized.
        col(Job.state).in_((JobState.VALIDATING, JobState.FINALIZING)),
        col(Job.in_progress_at).is_(None),
        or_(col(Job.input_file_id) == file_id, col(Job.retry_of).in_(failed_there)),
    )
    return session.scalars(query.limit(1)).first()
