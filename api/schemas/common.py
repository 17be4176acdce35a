"""Objects that others are made of."""

from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

HOUR = 3600
DAY = 24 * HOUR


def _check_number(value: Any) -> Any:
    # Pydantic reads "7" and true as integers; to JSON they are none, while 3.0 is 3.
    if isinstance(value, bool | str):
        raise PydanticCustomError("int_type", "Input should be a valid integer")
    return value


# The last of an integer's annotations: the bounds before it are then those of the description.
JSON_NUMBER = BeforeValidator(_check_number)


class ExpiresAfter(BaseModel):
    """When a file goes away, in seconds after it was made: an hour to 30 days."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=HOUR, le=30 * DAY), JSON_NUMBER]


class Identified(BaseModel):
    """Anything that a list may hold."""

    id: str


T = TypeVar("T", bound=Identified)


class Page(BaseModel, Generic[T]):
    """One page of a list; ``last_id`` is the next page's ``after``."""

    object: Literal["list"] = "list"
    data: list[T]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, data: list[T], has_more: bool) -> Self:
        """The page that holds ``data``."""
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class ErrorBody(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every response that is an error."""

    error: ErrorBody
