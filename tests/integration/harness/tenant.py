"""A tenant's client: the official one, used as a careful program does, through every fault."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from openai import OpenAI
from openai.types import Batch

from integration.harness.checker import TERMINAL
from integration.harness.orders import Order
from integration.harness.witness import PATIENCE_SECONDS, TIMEOUT_SECONDS, Witness, persist

POLL_SECONDS = 0.5


class Tenant:
    """One tenant of a service at ``url`` (ending in ``/v1``)."""

    def __init__(self, name: str, url: str, key: str) -> None:
        self.name = name
        # The retries are `persist`'s, which goes on for longer than the client's own would.
        self.client = OpenAI(base_url=url, api_key=key, max_retries=0, timeout=TIMEOUT_SECONDS)
        self.witness = Witness(name, url, key)

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
        self.witness.close()

    def submit(self, order: Order, **options: Any) -> Batch:
        """Upload and create. However often that is tried, there is one batch."""
        files, batches = self.client.files, self.client.batches
        upload = ("input.jsonl", order.content)
        file = persist(lambda: files.create(file=upload, purpose="batch"))
        key = {"Idempotency-Key": uuid4().hex}
        return persist(
            lambda: batches.create(
                input_file_id=file.id,
                endpoint=order.endpoint,  # type: ignore[arg-type]
                completion_window="24h",
                extra_headers=key,
                **options,
            )
        )

    def batch(self, batch_id: str) -> Batch:
        """The batch as it is now."""
        return persist(lambda: self.client.batches.retrieve(batch_id))

    def tell(self, batch_id: str, order: str) -> Batch:
        """Tell a batch to ``pause``, ``resume``, ``cancel`` or ``retry``."""
        client = self.client.with_options(default_headers={"Idempotency-Key": uuid4().hex})
        path = f"/batches/{batch_id}/{order}"
        answer: Batch = persist(lambda: client.post(path, cast_to=Batch))
        return answer

    def wait(
        self,
        batch_id: str,
        reached: Callable[[Batch], bool] = lambda batch: batch.status in TERMINAL,
        seconds: float = PATIENCE_SECONDS,
    ) -> Batch:
        """Wait until a batch is so far, by default until it has ended."""
        deadline = time.monotonic() + seconds
        while not reached(batch := self.batch(batch_id)):
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{batch_id} is {batch.status} after {seconds:g} seconds: {batch}"
                )
            time.sleep(POLL_SECONDS)
        return batch


def done(batch: Batch) -> int:
    """Lines that have an answer or an error."""
    counts = batch.request_counts
    return counts.completed + counts.failed if counts else 0
