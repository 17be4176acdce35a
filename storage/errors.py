"""Every error that storage raises. Those of SQLAlchemy, botocore and the system become these.

``code`` is stable and meant for programs; the message says what to do. ``retryable`` tells a caller
whether the same call may succeed later with nothing changed.
"""


class StorageError(Exception):
    """Something that is kept could not be read or written."""

    code = "storage_error"
    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(StorageError):
    """The settings are not usable as they are."""

    code = "configuration_error"


class BucketNotFound(ConfigurationError):
    """There is no such bucket."""


class HomeInUse(StorageError):
    """Another process is using this data folder."""

    code = "home_in_use"


class NotFound(StorageError):
    """There is no such row."""

    code = "not_found"


class StateConflict(StorageError):
    """The row exists, but is not in the state that the change expects: a race was lost."""

    code = "state_conflict"


class FileInUse(StateConflict):
    """A batch has yet to read this file; try again once it runs or has ended.

    Attributes:
        job_id: the batch.
    """

    code = "file_in_use"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"The batch {job_id} has yet to read this file; try again once it runs or has ended."
        )
        self.job_id = job_id


class IllegalTransition(StorageError):
    """This state can never directly follow the other."""

    code = "illegal_transition"


class IdempotencyMismatch(StorageError):
    """This idempotency key was used before with a different request."""

    code = "idempotency_key_reused"


class InputGone(NotFound):
    """The input file was deleted or has expired."""

    code = "input_gone"


class NothingToRetry(StorageError):
    """The batch has no failed lines."""

    code = "nothing_to_retry"


class RetrySourceGone(StorageError):
    """The failed lines cannot be run again: the input or the error file is gone."""

    code = "retry_source_gone"


class PlanInvalid(StorageError):
    """The chunks of a plan do not cover every line exactly once."""

    code = "plan_invalid"


class CountsDiffer(StorageError):
    """The lines written are not the lines counted; the result must not be published."""

    code = "counts_differ"


class DatabaseUnavailable(StorageError):
    """The database cannot be reached."""

    code = "database_unavailable"
    retryable = True


class DatabaseLocked(DatabaseUnavailable):
    """Another program has locked the database."""

    code = "database_locked"


class DatabaseUnusable(StorageError):
    """The database is damaged, or is none of this version of Tidemill."""

    code = "database_unusable"


class ObjectStoreError(StorageError):
    """The object store refused or failed."""

    code = "object_store_error"


class InvalidKey(ObjectStoreError):
    """An object's key is not a plain relative path."""

    code = "invalid_object_key"


class ContentMismatch(ObjectStoreError):
    """The bytes written do not have the SHA-256 that was announced for them."""

    code = "content_mismatch"


class ObjectNotFound(ObjectStoreError):
    """There is no such object."""

    code = "object_not_found"


class ObjectExists(ObjectStoreError):
    """An object with this key exists already, and the write was conditional."""

    code = "object_exists"


class ObjectChanged(ObjectStoreError):
    """The object is no longer the one that was asked for (its ETag differs)."""

    code = "object_changed"


class ObjectStoreUnavailable(ObjectStoreError):
    """The object store cannot be reached, or answers with a server error."""

    code = "object_store_unavailable"
    retryable = True


class OutOfSpace(ObjectStoreError):
    """The disk or the quota is full; free some space and try again."""

    code = "out_of_space"
    retryable = True


class DecodedTooLarge(StorageError):
    """Compressed data holds more than the limit."""

    code = "input_too_large"


class DamagedData(StorageError):
    """Compressed data is damaged or cut off."""

    code = "input_damaged"


class TooManyLines(StorageError):
    """The input has more lines than the limit, blank ones included."""

    code = "too_many_lines"


class LineTooLong(StorageError):
    """A line is longer than the limit."""

    code = "line_too_long"


class DatasetError(StorageError):
    """A dataset could not be read or written."""

    code = "dataset_error"


class InputNotUnderstood(DatasetError):
    """The input file is not one that Tidemill understands."""

    code = "input_not_understood"


class EmptyInput(InputNotUnderstood):
    """There is nothing in the input file."""


class InputUriError(DatasetError):
    """An input in place cannot be taken; ``code`` says why."""

    code = "invalid_input_uri"

    def __init__(self, message: str, code: str = "invalid_input_uri") -> None:
        super().__init__(message)
        self.code = code


class InputModified(DatasetError):
    """A file of the input was changed or deleted after the batch was created."""

    code = "input_modified"


class InputMismatch(DatasetError):
    """This is not the input that the batch was made of."""

    code = "input_mismatch"


class ResultNotUnderstood(DatasetError):
    """The service's result file holds a line that is no result."""

    code = "result_not_understood"


class TemplateError(DatasetError):
    """The template is not one that makes requests of rows.

    Attributes:
        param: where it is wrong, such as ``tidemill.template.messages[0].content``.
    """

    code = "invalid_template"

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class OutputError(DatasetError):
    """Results cannot be written where they are to be, or not as asked; ``code`` says why.

    Attributes:
        param: the option at fault.
    """

    code = "invalid_output"

    def __init__(
        self, message: str, code: str = "invalid_output", param: str = "tidemill.output_uri"
    ) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class RowFault(DatasetError):
    """The template cannot make a request of this row."""

    code = "unreadable_row"
