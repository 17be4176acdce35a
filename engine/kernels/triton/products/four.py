"""Products of 16-bit activations and weights of 4 bits in groups (W4A16).

Nibbles become whole numbers of the activations' dtype, which is exact; a group's scale is applied
to its sum, in float32, and not to its weights. So few operations are spent on a weight, nothing is
lost whatever the scale's dtype, and a group's value for zero costs one product with the sum of the
activations of the group, which `group_sums` finds once for all outputs.
"""

import triton
import triton.language as tl

from engine.kernels.triton.products.nibbles import nibbles


@triton.jit
def _dot(weight, x, total, WEIGHT_LEFT: tl.constexpr):
    """The product of a weight's tile with x's, added to a total."""
    if WEIGHT_LEFT:
        total = tl.dot(weight, x, total, input_precision="ieee")
    else:
        total = tl.dot(x, tl.trans(weight), total, input_precision="ieee")
    return total


@triton.jit
def _scaled(found, scales, group, n, padded, WEIGHT_LEFT: tl.constexpr):
    """A group's sums with its scales, which are those of outputs."""
    scale = tl.load(scales + group * padded + n).to(tl.float32)
    return found * (scale[:, None] if WEIGHT_LEFT else scale[None, :])


@triton.jit(do_not_specialize=["rows", "splits"])
def four_bit_product(
    x,
    packed,
    scales,
    lows,
    sums,
    bias,
    out,
    workspace,
    rows,
    outputs,
    padded,
    inputs,
    stride,
    splits,
    TILE_ROWS: tl.constexpr,
    TILE_OUTPUTS: tl.constexpr,
    UNIT: tl.constexpr,
    GROUP: tl.constexpr,
    WEIGHT_LEFT: tl.constexpr,
    SPLIT: tl.constexpr,
    TAIL: tl.constexpr,
    ASSEMBLY: tl.constexpr,
):
    """out = x weightᵀ + bias.

    Grid: (tiles of rows · tiles of outputs, splits).

    Args:
        x: [rows, inputs].
        packed: uint8 [units, padded, UNIT / 2]; see `layout.pack_int4`.
        scales: [groups, padded].
        lows: [groups, padded]; None where 8 stands for zero.
        sums: float32 [groups, stride]; the sums of x over each group, or None as lows.
        bias: [outputs], or None.
        out: [rows, outputs].
        workspace: float32 [splits, rows, outputs]; read only with SPLIT.
        rows, outputs, inputs: the shapes.
        padded: outputs with those that fill the last tile.
        stride: between the groups of sums.
        splits: ranges of inputs whose sums go to the workspace.
        TILE_ROWS, TILE_OUTPUTS: a tile; its inputs are a unit.
        UNIT: inputs of a unit.
        GROUP: inputs of a group: UNIT / 2, a multiple of UNIT, or 0 for all inputs.
        WEIGHT_LEFT: the weight is the left operand, from registers.
        SPLIT: write to the workspace, without bias.
        TAIL: inputs are no multiple of UNIT.
        ASSEMBLY: convert by PTX; for 16-bit floats on a GPU.
    """
    HALF: tl.constexpr = UNIT // 2
    tiles_down = tl.cdiv(rows, TILE_ROWS)
    m = tl.program_id(0) % tiles_down * TILE_ROWS + tl.arange(0, TILE_ROWS)
    n = tl.program_id(0) // tiles_down * TILE_OUTPUTS + tl.arange(0, TILE_OUTPUTS)
    split = tl.program_id(1)
    j = tl.arange(0, HALF)
    # Rows past the end read the last one, and are not stored.
    m_read = tl.minimum(m, rows - 1)
    x_rows = m_read.to(tl.int64) * inputs
    x_at = x + (x_rows[None, :] + j[:, None] if WEIGHT_LEFT else x_rows[:, None] + j[None, :])
    packed_at = packed + n[:, None] * HALF + j[None, :]
    run = padded.to(tl.int64) * HALF
    units = tl.cdiv(inputs, UNIT)
    each = tl.cdiv(units, splits)
    if WEIGHT_LEFT:
        nothing = tl.zeros([TILE_OUTPUTS, TILE_ROWS], tl.float32)
    else:
        nothing = tl.zeros([TILE_ROWS, TILE_OUTPUTS], tl.float32)
    total = nothing
    first = tl.minimum(split * each, units)
    last = tl.minimum(first + each, units)
    for unit in range(first, last):
        low, high = nibbles(
            tl.load(packed_at + unit * run), lows is None, x.dtype.element_ty, ASSEMBLY
        )
        if TAIL:
            left = inputs - unit * UNIT
            live = (j < left)[:, None] if WEIGHT_LEFT else (j < left)[None, :]
            x_low = tl.load(x_at + unit * UNIT, mask=live, other=0.0)
            live = (j < left - HALF)[:, None] if WEIGHT_LEFT else (j < left - HALF)[None, :]
            x_high = tl.load(x_at + unit * UNIT + HALF, mask=live, other=0.0)
        else:
            x_low = tl.load(x_at + unit * UNIT)
            x_high = tl.load(x_at + unit * UNIT + HALF)
        if GROUP == 0:
            total = _dot(low, x_low, total, WEIGHT_LEFT)
            total = _dot(high, x_high, total, WEIGHT_LEFT)
        elif GROUP == HALF:
            found = _dot(low, x_low, nothing, WEIGHT_LEFT)
            total += _scaled(found, scales, 2 * unit, n, padded, WEIGHT_LEFT)
            found = _dot(high, x_high, nothing, WEIGHT_LEFT)
            total += _scaled(found, scales, 2 * unit + 1, n, padded, WEIGHT_LEFT)
        else:
            found = _dot(low, x_low, nothing, WEIGHT_LEFT)
            found = _dot(high, x_high, found, WEIGHT_LEFT)
            total += _scaled(found, scales, unit * UNIT // GROUP, n, padded, WEIGHT_LEFT)
    if GROUP == 0:
        total = _scaled(total, scales, 0, n, padded, WEIGHT_LEFT)
    if lows is not None:
        # The groups that begin among this split's units.
        begin = tl.minimum(split, 1) if GROUP == 0 else tl.cdiv(first * UNIT, GROUP)
        end = 1 if GROUP == 0 else tl.cdiv(last * UNIT, GROUP)
        for group in range(begin, end):
            low = tl.load(lows + group * padded + n).to(tl.float32)
            x_sum = tl.load(sums + group * stride + m_read)
            if WEIGHT_LEFT:
                total += low[:, None] * x_sum[None, :]
            else:
                total += x_sum[:, None] * low[None, :]
    if WEIGHT_LEFT:
        total = tl.trans(total)
    live = (m < rows)[:, None] & (n < outputs)[None, :]
    at = m[:, None].to(tl.int64) * outputs + n[None, :]
    if SPLIT:
        tl.store(workspace + split.to(tl.int64) * rows * outputs + at, total, mask=live)
    else:
        if bias is not None:
            total += tl.load(bias + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
        tl.store(out + at, total.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["rows"])
def group_sums(
    x,
    sums,
    rows,
    inputs,
    groups,
    stride,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    GROUPS: tl.constexpr,
):
    """sums = the sums of x over each group of inputs, in float32.

    Grid: (rows, ceil(groups / GROUPS)).

    Args:
        x: [rows, inputs].
        sums: float32 [groups, stride].
        rows, inputs, groups: the shapes; the last group may be beyond the inputs.
        stride: between the groups of sums.
        GROUP: inputs of a group; 0 for all.
        WIDTH: inputs read at once, a power of two; at least GROUP if that is not 0.
        GROUPS: groups of a program.
    """
    row = tl.program_id(0)
    group = tl.program_id(1) * GROUPS + tl.arange(0, GROUPS)
    k = tl.arange(0, WIDTH)
    at = x + row.to(tl.int64) * inputs
    live = (group < groups)[:, None]
    if GROUP == 0:
        total = tl.zeros([GROUPS, WIDTH], tl.float32)
        for start in range(0, inputs, WIDTH):
            inside = live & (k < inputs - start)[None, :]
            total += tl.load(at + start + k[None, :], mask=inside, other=0.0).to(tl.float32)
    else:
        column = group[:, None] * GROUP + k[None, :]
        live &= (k < GROUP)[None, :] & (column < inputs)
        total = tl.load(at + column, mask=live, other=0.0)
    found = tl.sum(total.to(tl.float32), 1)
    tl.store(sums + group * stride + row, found, mask=group < groups)
