"""The object store: uploads, plans, parts and results; a local folder or S3."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from storage.errors import ConfigurationError
from storage.objects.base import ObjectInfo, ObjectStore, ObjectWriter, StoreProbe
from storage.objects.local import LocalStore
from storage.settings import StorageSettings

__all__ = ["ObjectInfo", "ObjectStore", "ObjectWriter", "StoreProbe", "open_store"]


def open_store(settings: StorageSettings) -> ObjectStore:
    """The store that the settings name: ``file:///folder`` or ``s3://bucket/prefix``.

    Raises:
        ConfigurationError: the URL is of neither kind.
    """
    url = urlsplit(settings.resolved_object_store_url)
    if url.scheme == "file" and url.netloc in ("", "localhost"):
        return LocalStore(Path(unquote(url.path)))
    if url.scheme == "s3" and url.netloc:
        # Imported here: the embedded mode then starts without loading boto3.
        from storage.objects.s3 import S3Store

        return S3Store.open(settings, bucket=url.netloc, prefix=url.path.strip("/"))
    raise ConfigurationError("object_store_url must be file:///folder or s3://bucket/prefix.")
