"""Where a tenant's results may be written, and the stores that write them there."""

import os
import re
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from uuid import uuid4

from storage.datasets.inputs.allowed import is_own
from storage.datasets.inputs.uris import InputUri
from storage.errors import (
    BucketNotFound,
    ConfigurationError,
    InputUriError,
    ObjectStoreError,
    OutOfSpace,
    OutputError,
)
from storage.objects import ObjectStore
from storage.objects.local import LocalStore
from storage.settings import StorageSettings

SETTING = "TIDEMILL_OUTPUT_URIS"
NOT_ALLOWED = "output_uri_not_allowed"
NOT_EMPTY = "output_not_empty"
NOT_WRITABLE = "output_not_writable"
_OWN = re.compile(r"part-\d+\.[a-z]+|manifest\.json|_SUCCESS")  # what an output's writer writes
_PROBE = re.compile(r"_probe-[0-9a-f]{32}")
_PROBE_SECONDS = 3600.0  # a check takes moments


@dataclass(frozen=True, slots=True)
class OutputPlaces:
    """The prefixes and folders that each tenant may write to."""

    by_tenant: tuple[tuple[str, InputUri], ...]

    @classmethod
    def of(cls, entries: Sequence[tuple[str, str]]) -> "OutputPlaces":
        """From pairs of a tenant and a URI, as `ApiSettings.output_prefixes` gives them.

        Raises:
            ConfigurationError: one of them names no folder or prefix.
        """
        try:
            return cls(tuple((tenant, parse_output_uri(text)) for tenant, text in entries))
        except OutputError as error:
            raise ConfigurationError(f"{SETTING}: {error}") from error

    def check_apart(self, settings: StorageSettings) -> None:
        """Check that no prefix lets tenants write among what the service itself keeps.

        Raises:
            ConfigurationError: one does.
        """
        for _, uri in self.by_tenant:
            if is_own(settings, uri):
                raise ConfigurationError(
                    f"{SETTING}: '{uri}' holds what the service itself keeps, or lies in it; "
                    "name a folder or prefix beside that."
                )

    def open(self, settings: StorageSettings, tenant: str, text: str) -> ObjectStore:
        """The store of a folder or prefix that the tenant may write to; nothing is written yet.

        Raises:
            OutputError: the URI is none, or not allowed, or a link leads elsewhere.
        """
        uri = parse_output_uri(text)
        roots = [root for owner, root in self.by_tenant if owner == tenant]
        root = next((root for root in roots if uri.is_within(root)), None)
        if root is None:
            raise OutputError(_why_not(uri, any_allowed=bool(roots)), NOT_ALLOWED)
        if uri.bucket:
            return _in_bucket(settings, uri.bucket, uri.path.strip("/"))
        folder, allowed = Path("/", uri.path), os.path.realpath(Path("/", root.path))
        if os.path.commonpath([os.path.realpath(folder), allowed]) != allowed:
            raise OutputError(f"'{uri}' is reached by a link that leads elsewhere.", NOT_ALLOWED)
        return LocalStore(folder)


def parse_output_uri(text: str) -> InputUri:
    """Understand the URI of a folder or prefix.

    Raises:
        OutputError: it is none, or could lead elsewhere than it says.
    """
    try:
        uri = InputUri.parse(text)
    except InputUriError:
        uri = None
    if uri is None or uri.is_glob or not uri.path.strip("/"):
        # The URI is not shown: it may hold a password.
        raise OutputError(
            "This is no URI of a folder for results: expected s3://bucket/prefix/ or "
            "file:///folder/, without '..', encoded slashes, wildcards and credentials."
        )
    return uri


def canonical(uri: str) -> str:
    """The one way to write the URI of a place."""
    return f"{str(parse_output_uri(uri)).rstrip('/')}/"


def check_new_place(store: ObjectStore, uri: str) -> None:
    """Check that a place is empty and that it can be written: an object is written and deleted.

    What somebody else is writing there is spared. Objects of other checks do not count; old ones
    are deleted.

    Raises:
        OutputError: it is not, or cannot.
        ObjectStoreUnavailable: the store cannot be reached.
    """
    try:
        if _holds_anything(store):
            raise OutputError(
                f"'{uri}' is not empty; name a folder or prefix without anything in it.", NOT_EMPTY
            )
        _drop_old_probes(store)
        key = f"_probe-{uuid4().hex}"
        store.put(key, b"probe\n", if_absent=True)
        store.delete(key)
        _drop_staging(store)
    except BucketNotFound as error:
        raise OutputError(f"There is no bucket for '{uri}'.", NOT_WRITABLE) from error
    except OutOfSpace as error:
        raise OutputError(f"There is no space at '{uri}': free some.", NOT_WRITABLE) from error
    except (ConfigurationError, ObjectStoreError, OSError) as error:
        if isinstance(error, ObjectStoreError) and error.retryable:
            raise
        raise OutputError(
            f"The service may not write to '{uri}'; give it the right to list, write and delete "
            "there.",
            NOT_WRITABLE,
        ) from error


def tidy(store: ObjectStore) -> None:
    """Remove what unfinished writes of an output have left; what cannot be removed does no harm."""
    with suppress(ObjectStoreError, ConfigurationError, OSError):
        store.sweep(0.0, keys=_OWN)
    _drop_staging(store)


def _drop_staging(store: ObjectStore) -> None:
    """Remove the folder of unfinished writes, if there are none."""
    if isinstance(store, LocalStore):
        with suppress(OSError):
            store.staging.rmdir()


def _drop_old_probes(store: ObjectStore) -> None:
    """Delete what checks have left that were killed."""
    before = time.time() - _PROBE_SECONDS
    for found in list(store.list("_probe-")):
        if _PROBE.fullmatch(found.key) and found.modified < before:
            store.delete(found.key)


def _holds_anything(store: ObjectStore) -> bool:
    if not isinstance(store, LocalStore):
        return any(not _PROBE.fullmatch(found.key) for found in store.list(""))
    try:
        with os.scandir(store.root) as entries:
            return any(
                entry.path != str(store.staging) and not _PROBE.fullmatch(entry.name)
                for entry in entries
            )
    except FileNotFoundError:
        return False


@lru_cache(maxsize=32)
def _in_bucket(settings: StorageSettings, bucket: str, prefix: str) -> ObjectStore:
    # Imported here: the embedded mode then starts without loading boto3.
    from storage.objects.s3 import S3Store

    return S3Store.open(settings, bucket=bucket, prefix=prefix)


def _why_not(uri: InputUri, *, any_allowed: bool) -> str:
    if not any_allowed:
        return (
            "No results may be written to places of the caller's here. Whoever runs the service "
            f"allows buckets and folders with {SETTING}, such as {SETTING}=s3://bucket/prefix."
        )
    return (
        f"'{uri}' is in no bucket or folder that you may write to. Whoever runs the service allows "
        f"more with {SETTING}."
    )
