"""A client of the service: files, batches and models over HTTP.

    with Client("http://127.0.0.1:8000") as client:
        file = client.upload(Upload.from_path(Path("requests.jsonl")))
        batch = client.create_batch(file.id, "/v1/chat/completions")
        for batch in client.watch(batch.id):
            print(batch.status)

The ``openai`` package works as well; this one is small, streams both ways with flat memory, and
tries again where that is safe.
"""

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

from tidemill.client.addresses import checked_id
from tidemill.client.shapes import Batch, BatchPage, File, Model, ModelList
from tidemill.client.uploads import Upload, form

DEFAULT_URL = "http://127.0.0.1:8000"
PAGE_BATCHES = 100
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS = 0.05, 2.0
POLL_GROWTH = 1.15  # each wait is about a seventh of the time waited so far


class Client:
    """Talks to one service.

    Args:
        url: where it listens, with or without ``/v1``.
        api_key: sent as a Bearer token.
        timeout: seconds to wait for each answer; for a connection 3 at the most.
        retries: how often a call that failed for a passing reason is made again. Calls that are
            not safe to repeat are repeated only when the connection itself was refused. A service
            that has not answered once is tried again once, a moment later.

    Raises:
        InvalidAddress: the URL or the key cannot be one.
        InvalidId: from every method, before the call, where an id cannot be one.
        ServiceUnreachable: from every method, where nothing answers.
        ApiError: from every method, where the answer is an error.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 60.0,
        retries: int = 4,
    ) -> None:
        # Imported here: a command can then begin its work before an HTTP library is loaded.
        from tidemill.client.transport import Transport

        self._transport = Transport(url, api_key, timeout=timeout, retries=retries)

    @property
    def url(self) -> str:
        """Where the service listens, without ``/v1``."""
        return self._transport.url

    @property
    def retries(self) -> int:
        """How often a call that failed for a passing reason is made again."""
        return self._transport.retries

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def upload(self, upload: Upload, *, purpose: str = "batch") -> File:
        """Upload a file in a stream."""
        boundary = secrets.token_hex(16)
        return self._transport.post(
            "files",
            File,
            content=lambda: form(boundary, {"purpose": purpose}, upload),
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
            safe=False,
        )

    def file(self, file_id: str) -> File:
        """A file's description."""
        return self._transport.get(f"files/{checked_id(file_id)}", File)

    def delete_file(self, file_id: str) -> None:
        """Delete a file."""
        self._transport.delete(f"files/{checked_id(file_id)}")

    def download(self, file_id: str) -> AbstractContextManager[Iterator[bytes]]:
        """Stream a file's content in pieces of any size."""
        return self._transport.stream(f"files/{checked_id(file_id)}/content")

    def create_batch(
        self,
        input_file_id: str | None,
        endpoint: str,
        *,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Batch:
        """Create a batch.

        Args:
            input_file_id: an uploaded file; ``None`` where ``options`` name an ``input_uri``.
            options: our own extension, e.g. ``{"on_invalid": "skip"}``.
        """
        body: dict[str, Any] = {
            "endpoint": endpoint,
            "completion_window": completion_window,
            "metadata": metadata,
        }
        if input_file_id is not None:
            body["input_file_id"] = checked_id(input_file_id)
        if options:
            body["tidemill"] = options
        return self._create("batches", body)

    def batch(self, batch_id: str) -> Batch:
        """A batch as it is now."""
        return self._transport.get(f"batches/{checked_id(batch_id)}", Batch)

    def batches(self, limit: int | None = None) -> Iterator[Batch]:
        """The batches, newest first, page by page."""
        after: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE_BATCHES if left is None else min(PAGE_BATCHES, left)
            params = {"limit": str(size)} | ({"after": after} if after else {})
            page = self._transport.get("batches", BatchPage, params)
            yield from page.data
            if not page.has_more or not page.data:
                return
            after = checked_id(page.data[-1].id)
            left = left if left is None else left - len(page.data)

    def watch(self, batch_id: str, pause: Callable[[float], None] = time.sleep) -> Iterator[Batch]:
        """The batch again and again, until it has finished; the last one is the finished one.

        Args:
            batch_id: the batch.
            pause: waits so many seconds between two looks, or less if there may be news.
        """
        wait = FIRST_POLL_SECONDS
        while True:
            batch = self.batch(batch_id)
            yield batch
            if batch.finished:
                return
            pause(wait)
            wait = min(LONGEST_POLL_SECONDS, wait * POLL_GROWTH)

    def cancel(self, batch_id: str) -> Batch:
        """Ask a batch to stop; what is done is kept."""
        return self._ask(batch_id, "cancel")

    def pause(self, batch_id: str) -> Batch:
        """Start nothing more of a batch; what is running runs to its end."""
        return self._ask(batch_id, "pause")

    def resume(self, batch_id: str) -> Batch:
        """Go on with a paused batch."""
        return self._ask(batch_id, "resume")

    def retry(
        self,
        batch_id: str,
        *,
        completion_window: str | None = None,
        metadata: Mapping[str, str] | None = None,
        priority: int | None = None,
    ) -> Batch:
        """Run the failed lines of an ended batch, as a new one; the rest as in the first batch."""
        body: dict[str, Any] = {}
        if completion_window is not None:
            body["completion_window"] = completion_window
        if metadata is not None:
            body["metadata"] = metadata
        if priority is not None:
            body["tidemill"] = {"priority": priority}
        return self._create(f"batches/{checked_id(batch_id)}/retry", body)

    def models(self) -> list[Model]:
        """The models the service may run."""
        return self._transport.get("models", ModelList).data

    def _ask(self, batch_id: str, what: str) -> Batch:
        return self._transport.post(f"batches/{checked_id(batch_id)}/{what}", Batch, safe=True)

    def _create(self, path: str, body: Mapping[str, Any]) -> Batch:
        # One key for all tries: where a response was lost, the same batch is returned again.
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return self._transport.post(path, Batch, body=body, headers=headers, safe=True)
