"""Errors of the floor below, as the errors of this one: with an exit code, and a class of ours."""

from collections.abc import Iterator
from contextlib import contextmanager

from storage.errors import (
    DatasetError,
    InputMismatch,
    InputNotUnderstood,
    ResultNotUnderstood,
    TemplateError,
)
from tidemill.errors import ClientError, InputChanged, InputError, TidemillError, UsageError

_OURS: dict[type[DatasetError], type[TidemillError]] = {
    InputNotUnderstood: InputError,
    InputMismatch: InputChanged,
    ResultNotUnderstood: ClientError,
    TemplateError: UsageError,
}


@contextmanager
def dataset_errors() -> Iterator[None]:
    """Raise what a dataset's reader or writer raises as a `TidemillError` with the same message."""
    try:
        yield
    except DatasetError as error:
        kinds = (ours for theirs, ours in _OURS.items() if isinstance(error, theirs))
        raise next(kinds, TidemillError)(str(error)) from error
