"""What lies at a URI: the objects of a bucket, or the files of a folder, each with its version."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from storage.datasets.inputs.allowed import NOT_ALLOWED
from storage.datasets.inputs.remote import FolderFile, S3Object, denied, file_tag
from storage.datasets.inputs.uris import InputUri
from storage.datasets.values.files import DataFile
from storage.errors import (
    BucketNotFound,
    ConfigurationError,
    InputUriError,
    ObjectNotFound,
    ObjectStoreError,
)
from storage.settings import StorageSettings

if TYPE_CHECKING:
    from storage.objects.s3_bucket import S3Bucket

NOT_FOUND = "input_not_found"
_LOST_FOUND = "lost+found"  # of a file system itself; none but root may look into it


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of an input, as it was when it was listed.

    Attributes:
        partitions: the columns that the names of its folders spell.
    """

    uri: str
    size: int
    etag: str
    partitions: dict[str, str | None] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Place:
    """A file at its path within a bucket or file system, before it is one of an input."""

    path: str
    size: int
    etag: str


def find(settings: StorageSettings, uri: InputUri, root: InputUri) -> Iterator[Place]:
    """What a URI without wildcards stands for: the file of that path, or all files below it.

    Of a glob, for the caller to choose from: all objects with its `InputUri.prefix`, or all files
    below its `InputUri.folder`.

    Args:
        root: the allowed prefix that the URI lies in; links that lead out of it are refused.

    Raises:
        InputUriError: the bucket is not there, or may not be read, or refuses the path.
        ObjectStoreUnavailable: the store cannot be reached.
    """
    return _in_bucket(settings, uri) if uri.bucket else _in_folder(uri, root)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is passed over, unless it is named itself."""
    return name.startswith(".") or (name[:1] == "_" and "=" not in name)


def data_file(settings: StorageSettings, file: InputFile) -> DataFile:
    """The bytes of a file, in the version that was listed."""
    uri = InputUri.listed(file.uri)
    if not uri.bucket:
        return FolderFile(file.uri, Path("/", uri.path), file.size, file.etag)
    return S3Object(file.uri, uri.path, file.size, file.etag, _bucket(settings, uri.bucket))


@lru_cache(maxsize=32)
def _bucket(settings: StorageSettings, name: str) -> "S3Bucket":
    # Imported here: the embedded mode then starts without loading boto3.
    from storage.objects.s3_bucket import S3Bucket
    from storage.objects.s3_client import new_client

    return S3Bucket(new_client(settings), bucket=name, prefix="", part_bytes=0)


def _in_bucket(settings: StorageSettings, uri: InputUri) -> Iterator[Place]:
    bucket = _bucket(settings, uri.bucket)
    with _named(uri):
        prefix = uri.prefix
        if uri.path and not uri.path.endswith("/"):
            # A key may have the characters of a glob, so the object of that very key comes first.
            first = next(_listed(bucket, uri.path, page=1), None)
            if first is not None and first.path == uri.path:
                yield first
                return
            prefix = prefix if uri.is_glob else f"{uri.path}/"
        yield from _listed(bucket, prefix)


def _listed(bucket: "S3Bucket", prefix: str, page: int = 1_000) -> Iterator[Place]:
    pages = bucket.client.get_paginator("list_objects_v2").paginate(
        Bucket=bucket.bucket, Prefix=prefix, PaginationConfig={"PageSize": page}
    )
    for found in pages:
        for item in found.get("Contents", ()):
            yield Place(item["Key"], item["Size"], item["ETag"])


def _in_folder(uri: InputUri, root: InputUri) -> Iterator[Place]:
    inside = _Inside(uri, Path("/", root.path))
    try:
        path = Path("/", uri.path)
        if not uri.path.endswith("/") and path.is_file():
            yield inside.place(path)
            return
        folder = Path("/", uri.folder)
        inside.check(folder)
        for parent, folders, names in os.walk(folder, onerror=_raise):
            folders[:] = sorted(name for name in folders if _may_hold(Path(parent, name), uri))
            for name in folders:
                if Path(parent, name).is_symlink():  # which the walk does not follow
                    inside.check(Path(parent, name))
            for name in sorted(names):
                file = Path(parent, name)
                passed_over = is_hidden(name) or (uri.is_glob and not uri.matches(str(file)[1:]))
                # Counted, but not looked at: whatever it is, it does no harm.
                yield Place(str(file)[1:], 0, "") if passed_over else inside.place(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputUriError(f"There is nothing at '{uri}'.", NOT_FOUND) from error
    except OSError as error:
        raise denied(str(uri)) from error


def _may_hold(folder: Path, uri: InputUri) -> bool:
    if is_hidden(folder.name) or folder.name == _LOST_FOUND:
        return False
    return not uri.is_glob or uri.reaches(str(folder)[1:])


def _raise(error: OSError) -> None:
    raise error


class _Inside:
    """Files of one folder of the service's machine, and none that a link leads to elsewhere."""

    def __init__(self, uri: InputUri, root: Path) -> None:
        self._uri = uri
        self._root = os.path.realpath(root)

    def place(self, path: Path) -> Place:
        try:
            self.check(path)
            found = path.stat()
        except FileNotFoundError as error:
            raise InputUriError(f"There is nothing at '{_uri_of(path)}'.", NOT_FOUND) from error
        if not stat.S_ISREG(found.st_mode):
            raise InputUriError(f"'{_uri_of(path)}' is no regular file.")
        return Place(str(path)[1:], found.st_size, file_tag(found))

    def check(self, path: Path) -> None:
        real = os.path.realpath(path, strict=True)
        if os.path.commonpath([real, self._root]) != self._root:
            raise self.refused(path)

    def refused(self, path: Path) -> InputUriError:
        return InputUriError(f"'{_uri_of(path)}' is a link that leads elsewhere.", NOT_ALLOWED)


def _uri_of(path: Path) -> InputUri:
    return InputUri("", str(path)[1:])


@contextmanager
def _named(uri: InputUri) -> Iterator[None]:
    """Errors of S3 as errors of an input that name it."""
    from storage.objects.s3_errors import translated

    try:
        with translated(str(uri), reading=True):
            yield
    except BucketNotFound as error:
        raise InputUriError(f"There is no bucket '{uri.bucket}'.", NOT_FOUND) from error
    except ObjectNotFound as error:
        raise InputUriError(f"There is nothing at '{uri}'.", NOT_FOUND) from error
    except ConfigurationError as error:
        raise denied(str(uri)) from error
    except ObjectStoreError as error:
        if error.retryable:
            raise
        raise InputUriError(str(error)) from error
