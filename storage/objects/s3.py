"""Objects in S3 or anything that speaks it, by boto3.

Only what S3-likes have in common is used: conditional PUT and multipart completion
(``If-None-Match: *``), ``If-Match`` and ranges on GET, and ``Content-MD5`` on what is sent. Without
a checksum some stores keep the empty body of a connection that broke before its first byte. The
SHA-256 travels as object metadata where it is known before the upload starts.
"""

import hashlib
import io
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, cast
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from storage.errors import (
    ContentMismatch,
    ObjectExists,
    ObjectStoreError,
    ObjectStoreUnavailable,
    StorageError,
)
from storage.objects.base import ObjectInfo, StoreProbe, accept_same, check_key, copy
from storage.objects.s3_connection import require_whole_heads
from storage.objects.s3_errors import Refused, code_of, translated
from storage.settings import StorageSettings

BUFFER_BYTES = 1 << 18
RESUMES = 5
EQUAL_PARTS = 1_000  # of S3's 10,000; then parts grow, so that an object may have terabytes
_SHA256 = "sha256"


class S3Store:
    """An `ObjectStore` in one bucket, under one prefix. Safe to use from any thread."""

    def __init__(self, client: Any, *, bucket: str, prefix: str, part_bytes: int) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.part_bytes = part_bytes

    @classmethod
    def open(cls, settings: StorageSettings, *, bucket: str, prefix: str) -> "S3Store":
        """A store with the settings' endpoint and credentials; nothing is asked of S3 yet."""
        require_whole_heads()
        secret = settings.s3_secret_access_key
        with translated(bucket):
            client = boto3.client(
                "s3",
                endpoint_url=settings.s3_endpoint_url,
                region_name=settings.s3_region,
                aws_access_key_id=settings.s3_access_key_id,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                config=Config(
                    signature_version="s3v4",
                    connect_timeout=5,
                    read_timeout=60,
                    max_pool_connections=40,
                    retries={"mode": "standard", "total_max_attempts": 5},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": settings.s3_addressing_style},
                ),
            )
        return cls(client, bucket=bucket, prefix=prefix, part_bytes=settings.s3_part_bytes)

    def put(
        self,
        key: str,
        data: bytes | BinaryIO,
        *,
        if_absent: bool = False,
        sha256: str | None = None,
    ) -> ObjectInfo:
        with self.writer(key, if_absent=if_absent, sha256=sha256) as writer:
            copy(data, writer)
        return writer.info

    @contextmanager
    def writer(
        self, key: str, *, if_absent: bool = False, sha256: str | None = None
    ) -> Iterator["S3Writer"]:
        check_key(key)
        writer = S3Writer(self, key, if_absent=if_absent, announced=sha256)
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    @contextmanager
    def reader(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[BinaryIO]:
        check_key(key)
        with _Body(self, key, start, end, if_match) as body:
            yield cast(BinaryIO, io.BufferedReader(body, BUFFER_BYTES))

    def head(self, key: str) -> ObjectInfo:
        check_key(key)
        with translated(key):
            answer = self.client.head_object(Bucket=self.bucket, Key=self.prefix + key)
        return ObjectInfo(
            key,
            answer["ContentLength"],
            answer["ETag"],
            answer["Metadata"].get(_SHA256),
            answer["LastModified"].timestamp(),
        )

    def delete(self, key: str) -> None:
        check_key(key)
        with translated(key):
            self.client.delete_object(Bucket=self.bucket, Key=self.prefix + key)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As `ObjectStore.list`; ``sha256`` is not part of S3's listings and is ``None``."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix + prefix
        )
        with translated(prefix):
            for page in pages:
                for item in page.get("Contents", ()):
                    key = item["Key"].removeprefix(self.prefix)
                    modified = item["LastModified"].timestamp()
                    yield ObjectInfo(key, item["Size"], item["ETag"], None, modified)

    def sweep(self, older_than: float) -> int:
        before = datetime.now(UTC) - timedelta(seconds=older_than)
        swept = 0
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.prefix
        )
        with translated(self.prefix):
            for page in pages:
                for item in page.get("Uploads", ()):
                    if item["Initiated"] < before:
                        self.abort(item["Key"], item["UploadId"])
                        swept += 1
        return swept

    def abort(self, full_key: str, upload_id: str) -> None:
        """Drop an open multipart upload."""
        with translated(full_key):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=full_key, UploadId=upload_id)

    def probe(self) -> StoreProbe:
        key = f"probe/{uuid4().hex}"
        self.put(key, b"first", if_absent=True)
        try:
            self.put(key, b"second", if_absent=True)
            conditional = False
        except ObjectExists:
            conditional = True
        self.delete(key)
        return StoreProbe(conditional, None)


class S3Writer:
    """A `storage.objects.base.ObjectWriter`: one PUT if it fits in one part, else a multipart."""

    def __init__(self, store: S3Store, key: str, *, if_absent: bool, announced: str | None) -> None:
        self._store = store
        self._key = key
        self._condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        self._announced = announced
        self._target: dict[str, Any] = {"Bucket": store.bucket, "Key": store.prefix + key}
        self._hash = hashlib.sha256()
        self._size = 0
        self._buffer = bytearray()
        self._upload_id: str | None = None
        self._parts: list[dict[str, Any]] = []
        self._info: ObjectInfo | None = None

    @property
    def size(self) -> int:
        return self._size

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    @property
    def info(self) -> ObjectInfo:
        if self._info is None:
            raise ObjectStoreError("The object is not finished.")
        return self._info

    def write(self, data: bytes) -> int:
        self._hash.update(data)
        self._size += len(data)
        self._buffer += data
        while len(self._buffer) > (size := self._part_bytes):
            self._send_part(size)
        return len(data)

    @property
    def _part_bytes(self) -> int:
        """The next part's size: 10,000 parts of 16 MiB at first hold 6 TiB in the end."""
        return int(self._store.part_bytes * (1 + len(self._parts) // EQUAL_PARTS) ** 2)

    def finish(self) -> None:
        """Make the object visible, as one conditional request."""
        if self._announced not in (None, self.sha256):
            raise ContentMismatch()
        try:
            with translated(self._key):
                if self._upload_id is None:
                    self._put()
                else:
                    self._complete()
        except Refused:
            self._info = accept_same(self._store, self._key, self.sha256)
            self.abort()
        else:
            self._upload_id = None
            self._info = self._store.head(self._key)
            if self._info.size != self._size:
                raise ObjectStoreUnavailable(
                    f"{self._key} has {self._info.size} of {self._size} bytes; write it again."
                )

    def abort(self) -> None:
        """Leave nothing behind; an upload that cannot be dropped now is left to `sweep`."""
        if self._upload_id is not None:
            with suppress(StorageError):
                self._store.abort(self._target["Key"], self._upload_id)
            self._upload_id = None

    def _put(self) -> None:
        body = bytes(self._buffer)
        self._store.client.put_object(
            **self._target,
            **self._condition,
            Body=body,
            ContentMD5=_md5(body),
            Metadata={_SHA256: self.sha256},
        )

    def _send_part(self, size: int) -> None:
        with translated(self._key):
            if self._upload_id is None:
                metadata = {_SHA256: self._announced} if self._announced else {}
                self._upload_id = self._store.client.create_multipart_upload(
                    **self._target, Metadata=metadata
                )["UploadId"]
            number = len(self._parts) + 1
            body = bytes(self._buffer[:size])
            answer = self._store.client.upload_part(
                **self._target,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=body,
                ContentMD5=_md5(body),
            )
        self._parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        del self._buffer[:size]

    def _complete(self) -> None:
        if self._buffer:
            self._send_part(len(self._buffer))
        self._store.client.complete_multipart_upload(
            **self._target,
            **self._condition,
            UploadId=cast(str, self._upload_id),
            MultipartUpload={"Parts": cast(Any, self._parts)},
        )


def _md5(body: bytes) -> str:
    """``Content-MD5`` of a body: against accidents on the way, not against attackers."""
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


class _Body(io.RawIOBase):
    """The bytes ``[start, end)`` of an object. A broken connection is resumed where it broke.

    The first answer's ETag is a condition of every later one, so that a resumed read can never go
    on in another object.
    """

    def __init__(
        self, store: S3Store, key: str, start: int, end: int | None, if_match: str | None
    ) -> None:
        self._store = store
        self._key = key
        self._at = start
        self._end = end
        self._etag = if_match
        self._stream: Any = None
        if end is None or start < end:
            self._open()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview[int]") -> int:  # type: ignore[override]
        for _ in range(RESUMES):
            if self._stream is None:
                return 0
            try:
                data = self._stream.read(len(buffer))
            except (HTTPClientError, IncompleteReadError):
                self._open()
                continue
            buffer[: len(data)] = data
            self._at += len(data)
            return len(data)
        raise ObjectStoreUnavailable(f"{self._key}: the connection broke {RESUMES} times.")

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        super().close()

    def _open(self) -> None:
        request: dict[str, Any] = {"IfMatch": self._etag} if self._etag else {}
        if self._at or self._end is not None:
            request["Range"] = f"bytes={self._at}-{'' if self._end is None else self._end - 1}"
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        with translated(self._key, reading=True):
            try:
                answer = self._store.client.get_object(
                    Bucket=self._store.bucket, Key=self._store.prefix + self._key, **request
                )
            except ClientError as error:
                if code_of(error) == "InvalidRange":
                    return  # past the end: nothing to read
                raise
        self._etag = answer["ETag"]
        self._stream = answer["Body"]
