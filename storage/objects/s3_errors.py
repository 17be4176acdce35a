"""From botocore's errors to those of storage, by one table."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.exceptions import ConnectionError as CannotConnect

from storage.errors import (
    BucketNotFound,
    ConfigurationError,
    ObjectChanged,
    ObjectExists,
    ObjectNotFound,
    ObjectStoreError,
    ObjectStoreUnavailable,
    OutOfSpace,
    StorageError,
)


class Refused(ObjectExists):
    """A conditional write found an object there, perhaps from its own earlier try."""


_BY_CODE: Mapping[str, type[StorageError]] = {
    "NoSuchKey": ObjectNotFound,
    "NotFound": ObjectNotFound,
    "404": ObjectNotFound,
    "NoSuchBucket": BucketNotFound,
    "InvalidAccessKeyId": ConfigurationError,
    "SignatureDoesNotMatch": ConfigurationError,
    "AccessDenied": ConfigurationError,
    "403": ConfigurationError,
    "PreconditionFailed": Refused,
    "412": Refused,
    # A completion sent again after its response was lost: the upload is gone by then.
    "NoSuchUpload": Refused,
    # Another conditional write of the same key is under way; S3 says to try again.
    "ConditionalRequestConflict": ObjectStoreUnavailable,
    "OperationAborted": ObjectStoreUnavailable,
    "SlowDown": ObjectStoreUnavailable,
    "RequestTimeout": ObjectStoreUnavailable,
    "InsufficientStorage": OutOfSpace,
    "QuotaExceeded": OutOfSpace,  # Ceph, as 403
    "XMinioStorageFull": OutOfSpace,
    "XMinioAdminBucketQuotaExceeded": OutOfSpace,
}
_BY_STATUS: Mapping[int, type[StorageError]] = {507: OutOfSpace}


def code_of(error: ClientError) -> str:
    """S3's own code for an error, such as ``NoSuchKey``."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def translated(key: str, *, reading: bool = False) -> Iterator[None]:
    """Raise errors of storage instead of botocore's; ``key`` is for the message."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        kind = _BY_CODE.get(code)
        if kind is None:
            other = ObjectStoreUnavailable if status >= 500 else ObjectStoreError
            kind = _BY_STATUS.get(status, other)
        if kind is Refused and reading:
            kind = ObjectChanged
        raise kind(f"{key}: the object store answered {status} {code}.") from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise ConfigurationError("No S3 credentials are set.") from error
    except (CannotConnect, HTTPClientError) as error:
        raise ObjectStoreUnavailable() from error
    except BotoCoreError as error:
        raise ObjectStoreError(f"{key}: the request could not be made.") from error
