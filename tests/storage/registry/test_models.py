"""Rows of models."""

import pytest

from storage.database.connection import Database
from storage.errors import NotFound, StateConflict
from storage.registry import models


def test_models_come_and_go(database: Database) -> None:
    assert models.list_models(database) == []
    models.add(database, "b", "/models/b")
    models.add(database, "a", "/models/a.gguf")
    assert [model.name for model in models.list_models(database)] == ["a", "b"]
    assert models.get(database, "a").source == "/models/a.gguf"
    models.remove(database, "a")
    for use in (models.get, models.remove):
        with pytest.raises(NotFound):
            use(database, "a")


def test_a_name_stands_for_one_source(database: Database) -> None:
    first = models.add(database, "a", "/models/a")
    assert models.add(database, "a", "/models/a") == first
    with pytest.raises(StateConflict):
        models.add(database, "a", "/elsewhere")


def test_the_default_model_is_there_once(database: Database) -> None:
    first = models.ensure_default(database, "smollm2")
    assert first.source == "smollm2"
    assert models.ensure_default(database, "smollm2", "/other") == first
