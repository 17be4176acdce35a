"""Writing one object to a bucket: a single request, or a multipart upload for a large one."""

import hashlib
from base64 import b64encode
from contextlib import suppress
from typing import Any, cast

from storage.errors import (
    ContentMismatch,
    ObjectStoreError,
    ObjectStoreUnavailable,
    StorageError,
)
from storage.objects.base import ObjectInfo, accept_same
from storage.objects.s3_bucket import SHA256, S3Bucket
from storage.objects.s3_errors import Refused, translated

EQUAL_PARTS = 1_000  # of S3's 10,000; then parts grow, so that an object may have terabytes


class S3Writer:
    """A `storage.objects.base.ObjectWriter`: one PUT for one part, else a multipart upload."""

    def __init__(
        self, bucket: S3Bucket, key: str, *, if_absent: bool, announced: str | None
    ) -> None:
        self._bucket = bucket
        self._key = key
        self._condition: dict[str, Any] = {"IfNoneMatch": "*"} if if_absent else {}
        self._announced = announced
        self._target: dict[str, Any] = bucket.target(key)
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
        return int(self._bucket.part_bytes * (1 + len(self._parts) // EQUAL_PARTS) ** 2)

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
            self._info = accept_same(self._bucket, self._key, self.sha256)
            self.abort()
        else:
            self._upload_id = None
            self._info = self._bucket.head(self._key)
            if self._info.size != self._size:
                raise ObjectStoreUnavailable(
                    f"{self._key} has {self._info.size} of {self._size} bytes; write it again."
                )

    def abort(self) -> None:
        """Drop an open upload; where that fails, `S3Store.sweep` drops it later."""
        if self._upload_id is not None:
            with suppress(StorageError):
                self._bucket.abort(self._target["Key"], self._upload_id)
            self._upload_id = None

    def _put(self) -> None:
        body = bytes(self._buffer)
        self._bucket.client.put_object(
            **self._target,
            **self._condition,
            Body=body,
            ContentMD5=_md5(body),
            Metadata={SHA256: self.sha256},
        )

    def _send_part(self, size: int) -> None:
        with translated(self._key):
            if self._upload_id is None:
                metadata = {SHA256: self._announced} if self._announced else {}
                self._upload_id = self._bucket.client.create_multipart_upload(
                    **self._target, Metadata=metadata
                )["UploadId"]
            number = len(self._parts) + 1
            body = bytes(self._buffer[:size])
            answer = self._bucket.client.upload_part(
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
        self._bucket.client.complete_multipart_upload(
            **self._target,
            **self._condition,
            UploadId=cast(str, self._upload_id),
            MultipartUpload={"Parts": cast(Any, self._parts)},
        )


def _md5(body: bytes) -> str:
    """The ``Content-MD5`` of a body: it finds accidents of transport, not attacks."""
    return b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()
