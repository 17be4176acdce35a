"""Sums over the ranges of inputs that programs of a product shared among them."""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["count", "splits"])
def add_splits(
    workspace, row_scales, channel_scales, bias, out, count, outputs, splits, CELLS: tl.constexpr
):
    """out = the sum over the splits, with scales and bias.

    Grid: (ceil(count / CELLS),).

    Args:
        workspace: [splits, rows, outputs], int32 or float32.
        row_scales, channel_scales: float32 [rows], [outputs], or None both.
        bias: [outputs], or None.
        out: [rows, outputs].
        count: rows · outputs.
        outputs: columns.
        splits: how many.
        CELLS: of the result, a program.
    """
    at = tl.program_id(0).to(tl.int64) * CELLS + tl.arange(0, CELLS)
    live = at < count
    total = tl.load(workspace + at, mask=live, other=0)
    for split in range(1, splits):
        total += tl.load(workspace + split * count.to(tl.int64) + at, mask=live, other=0)
    found = total.to(tl.float32)
    if row_scales is not None:
        by_row = tl.load(row_scales + at // outputs, mask=live, other=0.0)
        found *= by_row * tl.load(channel_scales + at % outputs, mask=live, other=0.0)
    if bias is not None:
        found += tl.load(bias + at % outputs, mask=live, other=0.0).to(tl.float32)
    tl.store(out + at, found.to(out.dtype.element_ty), mask=live)
