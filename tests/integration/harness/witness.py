"""Gathers over HTTP what the checker judges, with nothing of the product's own code."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import httpx
import openai

from integration.harness.checker import Evidence, ResultFile

T = TypeVar("T")
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0
PATIENCE_SECONDS = 180.0
TIMEOUT_SECONDS = 30.0


def persist(call: Callable[[], T], *, seconds: float = PATIENCE_SECONDS) -> T:
    """Call until it works, as a careful client does.

    Broken connections and answers of 429 or 5xx are tried again, for at most ``seconds``; whatever
    else goes wrong is raised at once.
    """
    deadline = time.monotonic() + seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return call()
        except (httpx.TransportError, httpx.HTTPStatusError, openai.OpenAIError) as error:
            if not _transient(error) or time.monotonic() > deadline:
                raise
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def _transient(error: Exception) -> bool:
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code in (429, *range(500, 600))
    if isinstance(error, openai.APIStatusError):
        return error.status_code in (429, *range(500, 600))
    return isinstance(error, httpx.TransportError | openai.APIConnectionError)


class Witness:
    """Reads the API as one tenant. ``url`` ends in ``/v1``; ``key`` may be one that nobody has."""

    def __init__(self, name: str, url: str, key: str) -> None:
        self.name = name
        self._http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT_SECONDS
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def json(self, path: str) -> dict[str, Any]:
        """The JSON that the API serves at a path."""
        found: dict[str, Any] = self._get(path).json()
        return found

    def file(self, file_id: str | None) -> ResultFile | None:
        """A file with its content; ``None`` for ``None``."""
        if file_id is None:
            return None
        told = self.json(f"/files/{file_id}")
        answer = self._get(f"/files/{file_id}/content")
        return ResultFile(told["bytes"], answer.headers["ETag"].strip('"'), answer.content)

    def look(self, path: str) -> tuple[str, int]:
        """What was asked for, and the status that this tenant gets for it."""
        return f"{self.name}: GET {path}", persist(lambda: self._tried(path)).status_code

    def lists(self, path: str, wanted: str) -> tuple[str, int]:
        """404 where ``wanted`` is in no page of a list, else 200."""
        after = ""
        while True:
            page = self.json(f"{path}?limit=100{after}")
            if any(item["id"] == wanted for item in page["data"]):
                return f"{self.name}: GET {path} lists {wanted}", 200
            if not page["has_more"]:
                return f"{self.name}: GET {path}", 404
            after = f"&after={page['last_id']}"

    def _tried(self, path: str) -> httpx.Response:
        answer = self._http.get(path)
        if answer.status_code >= 500:
            answer.raise_for_status()
        return answer

    def _get(self, path: str) -> httpx.Response:
        return persist(lambda: self._tried(path).raise_for_status())


def collect(
    owner: Witness,
    batch_id: str,
    content: bytes,
    *,
    strangers: Sequence[Witness] = (),
    refusals: Mapping[str, str] | None = None,
    earlier: tuple[str | None, str | None] | None = None,
) -> Evidence:
    """Everything there is to know of a job that has ended."""
    batch = owner.json(f"/batches/{batch_id}")
    file_ids = [batch["input_file_id"], batch["output_file_id"], batch["error_file_id"]]
    paths = [f"/batches/{batch_id}"]
    paths += [f"/files/{file_id}{end}" for file_id in filter(None, file_ids) for end in _ENDS]
    return Evidence(
        input=content,
        batch=batch,
        output=owner.file(batch["output_file_id"]),
        errors=owner.file(batch["error_file_id"]),
        refusals=refusals or {},
        foreign=[stranger.look(path) for stranger in strangers for path in paths],
        earlier=earlier,
    )


_ENDS = ("", "/content")
