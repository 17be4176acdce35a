"""Sampling on the device, as launches of Triton's kernels."""

import triton
from torch import Tensor

from engine.kernels.fused.sampling import (
    ALTERNATIVES,
    BINS,
    CANDIDATES,
    CHUNK,
    REPORT_WIDTH,
    SampledRows,
    SamplerTensors,
    Workspace,
)
from engine.kernels.triton.launch import launch
from engine.kernels.triton.sampling import cut, filters, race
from engine.kernels.triton.sampling.report import report_chunks, report_rows

_SEARCHED = 512  # candidates that are compared with 16 thresholds at once


class TritonSampling:
    """See `engine.kernels.fused.sampling.SamplingKernels`."""

    def draw(
        self,
        rows: SampledRows,
        state: SamplerTensors,
        room: Workspace,
        *,
        adjusted: bool,
        filtered: bool,
    ) -> None:
        """See `SamplingKernels.draw`."""
        count, vocab = rows.logits.shape
        chunks, block = room.chunks, triton.next_power_of_2(room.chunks)
        source = (rows.logits, rows.slots, rows.positions, state.table)
        counts = state.counts if adjusted else None
        pools = (counts, state.lists, state.lists.shape[1] // 2) if adjusted else (None, None, 0)
        shape = {"VOCAB": vocab, "CHUNKS": chunks, "ADJUSTED": adjusted}
        tiles = {"STRIDE": rows.logits.stride(0), "CHUNK": CHUNK}
        filter_room = (room.sums, room.histogram) if filtered else (None, None)
        launch(
            race.race,
            (count, chunks),
            *(*source, *pools, room.best, room.where, *filter_room),
            **(shape | tiles),
            BINS=BINS,
            FILTERING=filtered,
            num_warps=8,
        )
        out = (rows.tokens, state.last_tokens)
        if not filtered:
            arguments = (rows.slots, state.table, counts, room.best, room.where, *out)
            launch(race.settle, (count,), *arguments, **shape, BLOCK=block, num_warps=1)
            return
        launch(
            filters.tally,
            (count, chunks),
            *(*source, *pools, room.best, room.histogram),
            **(shape | tiles),
            CHUNK_BLOCK=block,
            BINS=BINS,
            num_warps=8,
        )
        launch(
            filters.bound,
            (count,),
            *(rows.slots, state.table, room.best, room.sums, room.histogram),
            *(room.bounds, room.found),
            CHUNKS=chunks,
            CHUNK_BLOCK=block,
            BINS=BINS,
            num_warps=4,
        )
        candidates = (room.candidates, room.candidate_ids)
        launch(
            filters.gather,
            (count, chunks),
            *(*source, *pools, room.best, room.bounds, room.found, *candidates),
            **(shape | tiles),
            BINS=BINS,
            CANDIDATES=CANDIDATES,
            num_warps=8,
        )
        launch(
            cut.pick,
            (count,),
            *(*source, *pools, room.best, room.where, room.bounds, room.found, *candidates, *out),
            **shape,
            STRIDE=rows.logits.stride(0),
            CHUNK_BLOCK=block,
            CANDIDATES=CANDIDATES,
            BLOCK=_SEARCHED,
            num_warps=8,
        )

    def report(
        self, rows: SampledRows, state: SamplerTensors, room: Workspace, report: Tensor
    ) -> None:
        """See `SamplingKernels.report`."""
        count, vocab = rows.logits.shape
        chunks = room.chunks
        source = (rows.logits, rows.slots, state.table)
        found = (room.best, room.sums, room.top_keys, room.top_ids)
        shape = {
            "VOCAB": vocab,
            "STRIDE": rows.logits.stride(0),
            "CHUNKS": chunks,
            "ALTERNATIVES": ALTERNATIVES,
        }
        grid = (count, chunks)
        launch(report_chunks, grid, *source, *found, **shape, CHUNK=CHUNK, num_warps=8)
        launch(
            report_rows,
            (count,),
            *(*source, *found, rows.tokens, report),
            **shape,
            BLOCK=triton.next_power_of_2(chunks),
            TOP_BLOCK=triton.next_power_of_2(chunks * ALTERNATIVES),
            WIDTH=REPORT_WIDTH,
            num_warps=4,
        )
