"""Objects in S3 or anything that speaks it, by boto3.

Only what all S3 servers support is used: conditional PUT and multipart completion
(``If-None-Match: *``), ``If-Match`` and ranges on GET, and ``Content-MD5`` on what is sent. Without
a checksum some servers store an empty object when a connection breaks before the first byte. The
SHA-256 is kept as object metadata where it is known before the upload starts.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import BinaryIO
from uuid import uuid4

from storage.errors import ObjectExists
from storage.objects.base import ObjectInfo, StoreProbe, check_key, copy
from storage.objects.s3_bucket import S3Bucket
from storage.objects.s3_client import new_client
from storage.objects.s3_errors import translated
from storage.objects.s3_writer import S3Writer
from storage.settings import StorageSettings


class S3Store(S3Bucket):
    """An `ObjectStore` in one bucket, under one prefix. Safe to use from any thread."""

    @classmethod
    def open(cls, settings: StorageSettings, *, bucket: str, prefix: str) -> "S3Store":
        """A store with the settings' endpoint and credentials; nothing is sent to S3 yet.

        Raises:
            ConfigurationError: the endpoint is no address.
        """
        return cls(
            new_client(settings), bucket=bucket, prefix=prefix, part_bytes=settings.s3_part_bytes
        )

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
    ) -> Iterator[S3Writer]:
        check_key(key)
        writer = S3Writer(self, key, if_absent=if_absent, announced=sha256)
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abort()
            raise

    def delete(self, key: str) -> None:
        check_key(key)
        with translated(key):
            self.client.delete_object(**self.target(key))

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

    def sweep(self, older_than: float, *, keys: re.Pattern[str] | None = None) -> int:
        before = datetime.now(UTC) - timedelta(seconds=older_than)
        swept = 0
        pages = self.client.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=self.prefix
        )
        with translated(self.prefix):
            for page in pages:
                for item in page.get("Uploads", ()):
                    own = keys is None or keys.fullmatch(item["Key"].removeprefix(self.prefix))
                    if own and item["Initiated"] < before:
                        self.abort(item["Key"], item["UploadId"])
                        swept += 1
        return swept

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
