"""Reading from a bucket, and dropping uploads: what both sides of an S3 store need."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from botocore.exceptions import ClientError, HTTPClientError, IncompleteReadError

from storage.errors import ObjectStoreUnavailable
from storage.objects.base import ObjectInfo, check_key
from storage.objects.s3_errors import code_of, translated

BUFFER_BYTES = 1 << 18
RESUMES = 5
SHA256 = "sha256"  # the metadata that holds an object's digest


class S3Bucket:
    """One bucket, under one prefix. Safe to use from any thread."""

    def __init__(self, client: Any, *, bucket: str, prefix: str, part_bytes: int) -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""
        self.part_bytes = part_bytes

    def target(self, key: str) -> dict[str, Any]:
        """Where an object is, as boto3's arguments."""
        return {"Bucket": self.bucket, "Key": self.prefix + key}

    @contextmanager
    def reader(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[BinaryIO]:
        check_key(key)
        with self.stream(key, start=start, end=end, if_match=if_match) as stream:
            yield stream

    @contextmanager
    def stream(
        self, key: str, *, start: int = 0, end: int | None = None, if_match: str | None = None
    ) -> Iterator[BinaryIO]:
        """As `reader`, for a key of any characters: an object that others have named."""
        with _Body(self, key, start, end, if_match) as body:
            yield cast(BinaryIO, io.BufferedReader(body, BUFFER_BYTES))

    def head(self, key: str) -> ObjectInfo:
        check_key(key)
        with translated(key):
            answer = self.client.head_object(**self.target(key))
        return ObjectInfo(
            key,
            answer["ContentLength"],
            answer["ETag"],
            answer["Metadata"].get(SHA256),
            answer["LastModified"].timestamp(),
        )

    def abort(self, full_key: str, upload_id: str) -> None:
        """Drop an open multipart upload."""
        with translated(full_key):
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=full_key, UploadId=upload_id)


class _Body(io.RawIOBase):
    """The bytes ``[start, end)`` of an object. A broken connection is resumed where it broke.

    Every later request asks for the ETag of the first response, so that a resumed read never goes
    on in another object.
    """

    def __init__(
        self, bucket: S3Bucket, key: str, start: int, end: int | None, if_match: str | None
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._at = start
        self._end = end
        self._etag = if_match
        self._stream: Any = None
        if end is None or start < end:
            self._open()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
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
                answer = self._bucket.client.get_object(**self._bucket.target(self._key), **request)
            except ClientError as error:
                if code_of(error) == "InvalidRange":
                    return  # past the end: nothing to read
                raise
        self._etag = answer["ETag"]
        self._stream = answer["Body"]
