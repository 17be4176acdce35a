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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from tidemill.client.shapes import Batch, BatchPage, Envelope, File, Model, ModelList, Problem
from tidemill.errors import ApiError, ClientError, ServiceUnreachable

T = TypeVar("T")

DEFAULT_URL = "http://127.0.0.1:8000"
READ_BYTES = 256 * 1024
FIRST_POLL, LAST_POLL = 0.2, 2.0


@dataclass(frozen=True, slots=True)
class Upload:
    """What to upload. ``chunks`` is called again for every attempt."""

    filename: str
    chunks: Callable[[], Iterable[bytes]]

    @classmethod
    def from_path(cls, path: Path) -> Self:
        """Upload a file as it is."""
        return cls(path.name, lambda: _read(path))


class Client:
    """Talks to one service.

    Args:
        url: where it listens, with or without ``/v1``.
        api_key: sent as a Bearer token.
        timeout: seconds to wait for a connection and for each answer.
        retries: how often a call that failed for a passing reason is made again. Calls that are
            not safe to repeat are repeated only when the connection itself was refused.

    Raises:
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
        self.url = url.rstrip("/").removesuffix("/v1")
        self.retries = retries
        self._http = httpx.Client(
            base_url=self.url + "/v1/",
            headers={"Authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=timeout,
            # Loopback is never behind a proxy, whatever the environment says.
            trust_env=httpx.URL(self.url).host not in ("127.0.0.1", "localhost", "::1"),
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

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
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}

        def send() -> httpx.Response:
            content = _multipart(boundary, {"purpose": purpose}, upload)
            return self._http.post("files", content=content, headers=headers)

        return _decode(self._call(send), File)

    def file(self, file_id: str) -> File:
        """A file's description."""
        return _decode(self._get(f"files/{file_id}"), File)

    def delete_file(self, file_id: str) -> None:
        """Delete a file."""
        self._call(partial(self._http.delete, f"files/{file_id}"))

    @contextmanager
    def download(self, file_id: str) -> Iterator[Iterator[bytes]]:
        """Stream a file's content in pieces of any size."""
        try:
            with self._http.stream("GET", f"files/{file_id}/content") as response:
                if response.is_error:
                    response.read()
                    raise _api_error(response)
                yield response.iter_bytes(READ_BYTES)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def create_batch(
        self,
        input_file_id: str,
        endpoint: str,
        *,
        completion_window: str = "24h",
        metadata: Mapping[str, str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Batch:
        """Create a batch. ``options`` is our own extension, e.g. ``{"on_invalid": "skip"}``."""
        body: dict[str, Any] = {
            "input_file_id": input_file_id,
            "endpoint": endpoint,
            "completion_window": completion_window,
            "metadata": metadata,
        }
        if options:
            body["tidemill"] = options
        return self._create("batches", body)

    def batch(self, batch_id: str) -> Batch:
        """A batch as it is now."""
        return _decode(self._get(f"batches/{batch_id}"), Batch)

    def batches(self, limit: int | None = None) -> Iterator[Batch]:
        """The batches, newest first, page by page."""
        after: str | None = None
        left = limit
        while left is None or left > 0:
            size = 100 if left is None else min(100, left)
            params = {"limit": str(size)} | ({"after": after} if after else {})
            page = _decode(self._get("batches", params), BatchPage)
            yield from page.data
            if not page.has_more or not page.data:
                return
            after = page.data[-1].id
            left = left if left is None else left - len(page.data)

    def watch(self, batch_id: str) -> Iterator[Batch]:
        """The batch again and again, until it has finished; the last one is the finished one."""
        wait = FIRST_POLL
        while True:
            batch = self.batch(batch_id)
            yield batch
            if batch.finished:
                return
            time.sleep(wait)
            wait = min(LAST_POLL, wait * 1.3)

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
        return self._create(f"batches/{batch_id}/retry", body)

    def _ask(self, batch_id: str, what: str) -> Batch:
        send = partial(self._http.post, f"batches/{batch_id}/{what}")
        return _decode(self._call(send, repeatable=True), Batch)

    def _create(self, path: str, body: Mapping[str, Any]) -> Batch:
        # One key for all attempts: after a lost answer, the same batch is returned again.
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        send = partial(self._http.post, path, json=body, headers=headers)
        return _decode(self._call(send, repeatable=True), Batch)

    def models(self) -> list[Model]:
        """The models the service may run."""
        return _decode(self._get("models"), ModelList).data

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> httpx.Response:
        return self._call(partial(self._http.get, path, params=params), repeatable=True)

    def _call(
        self, send: Callable[[], httpx.Response], *, repeatable: bool = False
    ) -> httpx.Response:
        attempt = 0
        while True:
            try:
                return self._once(send)
            except ApiError as error:
                again = repeatable and error.retryable
                failure: ClientError = error
            except ServiceUnreachable as error:
                again = repeatable or error.refused
                failure = error
            if not again or attempt == self.retries:
                raise failure
            time.sleep(min(4.0, 0.25 * 2**attempt))
            attempt += 1

    def _once(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            response = send()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if response.is_error:
            raise _api_error(response)
        return response

    def _unreachable(self, error: httpx.TransportError) -> ServiceUnreachable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServiceUnreachable(
                f"No service answers at {self.url}. Start one with 'tidemill up', or name another "
                "with --url or TIDEMILL_URL.",
                refused=True,
            )
        return ServiceUnreachable(f"The connection to {self.url} broke off.")


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece


def _multipart(boundary: str, fields: Mapping[str, str], upload: Upload) -> Iterator[bytes]:
    """The body of a form (RFC 7578) whose last field is the file, as a stream."""
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        yield f"{head}{value}\r\n".encode()
    filename = upload.filename.translate(_FILENAME_ESCAPES)
    disposition = f'form-data; name="file"; filename="{filename}"'
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n"
    yield f"{head}Content-Type: application/octet-stream\r\n\r\n".encode()
    yield from upload.chunks()
    yield f"\r\n--{boundary}--\r\n".encode()


_FILENAME_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def _decode(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.MsgspecError as error:
        raise ClientError(
            f"{response.url} did not answer as a Tidemill service does; is it one?"
        ) from error


def _api_error(response: httpx.Response) -> ApiError:
    try:
        problem = msgspec.json.decode(response.content, type=Envelope).error
    except msgspec.MsgspecError:
        problem = Problem(message=f"The service answered {response.status_code} without a reason.")
    return ApiError(
        problem.message,
        status=response.status_code,
        code=problem.code or problem.type,
        param=problem.param,
    )
