"""Which input a batch was made of: its digest stands in the batch's metadata."""

from collections.abc import Iterator
from contextlib import contextmanager

from storage.datasets.readers.digests import source_digest
from storage.datasets.values.sources import Kind, Source
from tidemill.client.client import Client
from tidemill.client.shapes import Batch
from tidemill.errors import ApiError, InputChanged, InputError
from tidemill.run.dataset_errors import dataset_errors

DIGEST_KEY = "input_sha256"


@contextmanager
def sent_unchanged(source: Source) -> Iterator[dict[str, str]]:
    """Metadata that tell a plain input apart, while it is sent; nothing for whole requests.

    Raises:
        InputError: it cannot be read, or is another one at the end.
    """
    if source.kind is Kind.REQUESTS:
        yield {}
        return
    before = _state(source)
    with dataset_errors():
        digest = source_digest(source)
    yield {DIGEST_KEY: digest}
    if _state(source) != before:
        raise InputError(
            f"{source.name} changed while it was sent, so nothing was started; try again once "
            "nobody writes to it."
        )


def _state(source: Source) -> tuple[int, int, int]:
    try:
        found = source.path.stat()
    except OSError as error:
        raise InputError(f"{source.name} cannot be read: {error.strerror}.") from error
    return found.st_ino, found.st_mtime_ns, found.st_size


def check_input(client: Client, batch: Batch, source: Source) -> None:
    """Check that a batch was made of this very input, as far as its metadata tell.

    Raises:
        InputChanged: it was not.
        InputError: the input cannot be read.
    """
    known = _digest_of(client, batch)
    if known is None:
        return
    with dataset_errors():
        digest = source_digest(source)
    if digest != known:
        raise InputChanged(
            f"{source.name} is not the file that {batch.id} was made of, or it was changed since; "
            "its answers belong to other rows. Join them to the file as it was."
        )


def _digest_of(client: Client, batch: Batch) -> str | None:
    """The digest in a batch's metadata, or of the batch whose failed lines it runs again."""
    while DIGEST_KEY not in (batch.metadata or {}):
        if batch.retry_of is None:
            return None
        try:
            batch = client.batch(batch.retry_of)
        except ApiError:
            return None
    return (batch.metadata or {})[DIGEST_KEY]
