"""Rows of models, which a job's lines may name."""

from sqlalchemy import delete, select
from sqlmodel import col

from storage.database.connection import Database, insert_if_absent, now_sql
from storage.database.tables import Model
from storage.errors import NotFound, StateConflict


def add(database: Database, name: str, source: str) -> Model:
    """Add a model; adding the same again is harmless.

    Raises:
        StateConflict: the name stands for another source already.
    """
    model = ensure_default(database, name, source)
    if model.source != source:
        raise StateConflict(f"The model {name} exists already, from {model.source}.")
    return model


def ensure_default(database: Database, name: str, source: str | None = None) -> Model:
    """The model of this name, added from ``source`` (by default its own name) if missing."""
    values = {"name": name, "source": source or name, "created_at": now_sql()}
    with database.write() as session:
        insert_if_absent(session, Model, values)
        return session.get_one(Model, name)


def remove(database: Database, name: str) -> None:
    """Delete a model's row, or `NotFound`. Jobs that are planned already still run."""
    with database.write() as session:
        gone = session.scalars(
            delete(Model).where(col(Model.name) == name).returning(col(Model.name))
        ).first()
    if gone is None:
        raise NotFound(f"There is no model {name}.")


def get(database: Database, name: str) -> Model:
    """The model of this name, or `NotFound`."""
    with database.read() as session:
        model = session.get(Model, name)
    if model is None:
        raise NotFound(f"There is no model {name}.")
    return model


def list_models(database: Database) -> list[Model]:
    """Every model, by name."""
    with database.read() as session:
        return list(session.scalars(select(Model).order_by(col(Model.name))))
