"""The request that runs a batch's failed lines again, as a batch of its own."""

from pydantic import BaseModel, ConfigDict

from api.schemas.batch_create import Metadata, Priority, Window


class RetryOptions(BaseModel):
    """What Tidemill adds; ``priority`` is by default that of the first batch."""

    model_config = ConfigDict(extra="forbid")

    priority: Priority | None = None


class BatchRetry(BaseModel):
    """The body of ``POST /v1/batches/{id}/retry``. Omitted fields are as in the first batch."""

    model_config = ConfigDict(extra="forbid")

    completion_window: Window | None = None
    metadata: Metadata | None = None
    tidemill: RetryOptions = RetryOptions()
