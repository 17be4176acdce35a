"""Models in the API."""

from typing import Literal

from pydantic import BaseModel

from storage.database.tables import Model


class ModelObject(BaseModel):
    """A model that a batch's lines may name."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "tidemill"

    @classmethod
    def of(cls, row: Model) -> "ModelObject":
        """The wire form of a row."""
        return cls(id=row.name, created=int(row.created_at))


class ModelList(BaseModel):
    """Every model, in one page."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
