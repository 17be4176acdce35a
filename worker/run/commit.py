"""Write a chunk's part and commit it."""

from collections.abc import Iterable

from storage.database.tables import Chunk
from storage.errors import ObjectExists
from storage.estimates.engine_time import EngineTime
from storage.jobs.chunks import Counts, commit_chunk
from storage.objects import ObjectStore, object_keys
from worker.context import WorkerContext
from worker.errors import PartMismatch


def write_part(store: ObjectStore, key: str, records: Iterable[bytes]) -> str:
    """Write a part and return its SHA-256 (hex).

    A part that is there already is accepted if it holds the same bytes: then it is an earlier write
    of this same attempt, which was not confirmed.

    Raises:
        PartMismatch: it holds other bytes.
        ObjectStoreError: it could not be written.
    """
    try:
        with store.writer(key, if_absent=True) as writer:
            for record in records:
                writer.write(record)
            return writer.sha256
    except ObjectExists as error:
        raise PartMismatch from error


def commit_part(
    worker: WorkerContext,
    chunk: Chunk,
    records: Iterable[bytes],
    counts: Counts,
    took: EngineTime | None = None,
) -> Chunk:
    """Write a chunk's part and commit the chunk with it; its row as it is then.

    ``took`` is what it took of an engine, if one ran it.

    Raises:
        StateConflict: another attempt holds the lease by now.
        StorageError: it could not be written; if ``retryable``, the same call may succeed later.
    """
    key = object_keys.part(chunk.job_id, chunk.a, chunk.b, chunk.attempt)
    sha256 = write_part(worker.store, key, records)
    return commit_chunk(
        worker.database,
        chunk.id,
        chunk.attempt,
        part_key=key,
        part_sha256=sha256,
        counts=counts,
        took=took,
    )
