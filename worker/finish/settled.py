"""The results of settled chunks, in the input's order; of lines that never ran, their errors."""

import hashlib
from collections.abc import Callable, Iterator
from functools import partial

from storage.database.states import ChunkState, StopReason
from storage.database.tables import Chunk, Job
from worker.context import WorkerContext
from worker.errors import BrokenResult
from worker.finish.merge import Source, merge, most_overlapping
from worker.plan.plan_file import PlanFile
from worker.run.chunk_run import never_run
from worker.run.parts import PartReader, Record

MERGE_BYTES = 64 * 1024 * 1024  # buffers of all parts that are being merged
SETTLED = (ChunkState.DONE, ChunkState.CANCELLED)


def merged_records(
    worker: WorkerContext, job: Job, chunks: Callable[[], Iterator[Chunk]]
) -> Iterator[Record]:
    """The records of settled chunks in line order, as a stream.

    Args:
        chunks: gives them in ascending order of their first line, as often as it is called.

    Raises:
        BrokenResult: a part is not the one that was committed, or a line comes twice.
        BrokenPlan: the plan of lines that never ran cannot be read.
    """
    open_at_once = most_overlapping((chunk.first_line, chunk.last_line) for chunk in chunks())
    reader = PartReader.sharing(worker.store, open_at_once, MERGE_BYTES)
    yield from merge(
        Source(chunk.first_line, partial(_of_chunk, worker, job, reader, chunk))
        for chunk in chunks()
    )


def _of_chunk(
    worker: WorkerContext, job: Job, reader: PartReader, chunk: Chunk
) -> Iterator[Record]:
    if chunk.state == ChunkState.CANCELLED:
        reason = StopReason(job.cancel or StopReason.CANCELLED)
        with worker.store.reader(chunk.plan_key) as stream:
            plan = PlanFile(stream.read())
        yield from never_run(job.id, plan, chunk.a, chunk.b, reason)
        return
    digest = hashlib.sha256()
    yield from reader.records(chunk.part_key or "", digest)
    if digest.hexdigest() != chunk.part_sha256:
        raise BrokenResult(f"The part {chunk.part_key} is not the one that was committed.")
