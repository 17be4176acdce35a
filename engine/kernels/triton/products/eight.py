"""Products of 8-bit activations and 8-bit weights (W8A8): int8 and float8_e4m3fn."""

import triton
import triton.language as tl


@triton.jit
def tile_of(program, tiles_down, tiles_across, BAND: tl.constexpr):
    """A program's tile. They go band by band of ``BAND`` tiles of rows, which the L2 then holds."""
    band = program // (BAND * tiles_across)
    height = tl.minimum(tiles_down - band * BAND, BAND)
    inside = program % (BAND * tiles_across)
    return band * BAND + inside % height, inside // height


@triton.jit
def widen(byte):
    """float16 of 2⁻⁸ times float8_e4m3fn: exact, as the exponents' biases are 15 and 7."""
    bits = byte.to(tl.uint16)
    half = ((bits & 0x80) << 8) | ((bits & 0x7F) << 7)
    half = tl.where((bits & 0x7F) == 0x7F, 0x7E00, half).to(tl.uint16)
    return half.to(tl.float16, bitcast=True)


@triton.jit(do_not_specialize=["rows", "splits"])
def eight_bit_product(
    x,
    weight,
    row_scales,
    channel_scales,
    bias,
    out,
    workspace,
    rows,
    outputs,
    inputs,
    splits,
    TILE_ROWS: tl.constexpr,
    TILE_OUTPUTS: tl.constexpr,
    TILE_INPUTS: tl.constexpr,
    BAND: tl.constexpr,
    WEIGHT_LEFT: tl.constexpr,
    SPLIT: tl.constexpr,
    TAIL: tl.constexpr,
    WIDEN: tl.constexpr,
    SUM: tl.constexpr,
):
    """out = row_scales · channel_scales · (x weightᵀ) + bias.

    Grid: (tiles of rows · tiles of outputs, splits).

    Args:
        x: [rows, inputs], int8 or float8; uint8 with WIDEN.
        weight: [outputs, inputs], of x's dtype.
        row_scales, channel_scales: float32 [rows], [outputs].
        bias: [outputs], or None.
        out: [rows, outputs].
        workspace: [splits, rows, outputs] of SUM's dtype; read only with SPLIT.
        rows, outputs, inputs: the shapes.
        splits: ranges of inputs whose sums go to the workspace.
        TILE_ROWS, TILE_OUTPUTS, TILE_INPUTS: a tile.
        BAND: see `tile_of`.
        WEIGHT_LEFT: the weight is the left operand, so that few rows fill the narrow side of a
            matrix instruction.
        SPLIT: write sums to the workspace, without scales and bias.
        TAIL: inputs are no multiple of TILE_INPUTS.
        WIDEN: the bytes are float8 and are multiplied as float16.
        SUM: int32 or float32.
    """
    row_tile, output_tile = tile_of(
        tl.program_id(0), tl.cdiv(rows, TILE_ROWS), tl.cdiv(outputs, TILE_OUTPUTS), BAND
    )
    split = tl.program_id(1)
    m = row_tile * TILE_ROWS + tl.arange(0, TILE_ROWS)
    n = output_tile * TILE_OUTPUTS + tl.arange(0, TILE_OUTPUTS)
    k = tl.arange(0, TILE_INPUTS)
    # Rows and outputs past the end read the last ones, and are not stored.
    x_rows = tl.minimum(m, rows - 1).to(tl.int64) * inputs
    weight_rows = tl.minimum(n, outputs - 1).to(tl.int64) * inputs
    tiles = tl.cdiv(inputs, TILE_INPUTS)
    each = tl.cdiv(tiles, splits)
    if WEIGHT_LEFT:
        total = tl.zeros([TILE_OUTPUTS, TILE_ROWS], SUM)
    else:
        total = tl.zeros([TILE_ROWS, TILE_OUTPUTS], SUM)
    for tile in range(split * each, tl.minimum(split * each + each, tiles)):
        start = tile * TILE_INPUTS
        if WEIGHT_LEFT:
            x_at = x + x_rows[None, :] + start + k[:, None]
            weight_at = weight + weight_rows[:, None] + start + k[None, :]
            x_live = (k < inputs - start)[:, None]
            weight_live = (k < inputs - start)[None, :]
        else:
            x_at = x + x_rows[:, None] + start + k[None, :]
            weight_at = weight + weight_rows[None, :] + start + k[:, None]
            x_live = (k < inputs - start)[None, :]
            weight_live = (k < inputs - start)[:, None]
        if TAIL:
            nothing = 0.0 if SUM.is_floating() and not WIDEN else 0
            x_tile = tl.load(x_at, mask=x_live, other=nothing)
            weight_tile = tl.load(weight_at, mask=weight_live, other=nothing)
        else:
            x_tile = tl.load(x_at)
            weight_tile = tl.load(weight_at)
        if WIDEN:
            x_tile = widen(x_tile)
            weight_tile = widen(weight_tile)
        if WEIGHT_LEFT:
            total = tl.dot(weight_tile, x_tile, total, out_dtype=SUM)
        else:
            total = tl.dot(x_tile, weight_tile, total, out_dtype=SUM)
    if WEIGHT_LEFT:
        total = tl.trans(total)
    if WIDEN:
        total *= 65536.0
    live = (m < rows)[:, None] & (n < outputs)[None, :]
    at = m[:, None].to(tl.int64) * outputs + n[None, :]
    if SPLIT:
        tl.store(workspace + split.to(tl.int64) * rows * outputs + at, total, mask=live)
    else:
        scaled = _scale(total, row_scales, channel_scales, bias, m, n, rows, outputs)
        tl.store(out + at, scaled.to(out.dtype.element_ty), mask=live)


@triton.jit(do_not_specialize=["rows"])
def eight_bit_product_by_descriptors(
    x,
    weight,
    row_scales,
    channel_scales,
    bias,
    out,
    rows,
    outputs,
    inputs,
    TILE_ROWS: tl.constexpr,
    TILE_OUTPUTS: tl.constexpr,
    TILE_INPUTS: tl.constexpr,
    BAND: tl.constexpr,
    STAGES: tl.constexpr,
    SUM: tl.constexpr,
):
    """The product of `eight_bit_product` through tensor descriptors (TMA), for many rows.

    Grid: (programs,), as many as the device runs at once; each takes tiles until none is left.

    Args:
        x, weight: descriptors of [rows, inputs] and [outputs, inputs], in tiles of
            [TILE_ROWS, TILE_INPUTS] and [TILE_OUTPUTS, TILE_INPUTS].
        STAGES: tiles of inputs in flight.

    The others are those of `eight_bit_product`.
    """
    tiles_down = tl.cdiv(rows, TILE_ROWS)
    tiles_across = tl.cdiv(outputs, TILE_OUTPUTS)
    steps = tl.cdiv(inputs, TILE_INPUTS)
    for tile in tl.range(
        tl.program_id(0),
        tiles_down * tiles_across,
        tl.num_programs(0),
        flatten=True,
        num_stages=STAGES,
    ):
        row_tile, output_tile = tile_of(tile, tiles_down, tiles_across, BAND)
        total = tl.zeros([TILE_ROWS, TILE_OUTPUTS], SUM)
        for step in tl.range(0, steps, num_stages=STAGES):
            x_tile = x.load([row_tile * TILE_ROWS, step * TILE_INPUTS])
            weight_tile = weight.load([output_tile * TILE_OUTPUTS, step * TILE_INPUTS])
            total = tl.dot(x_tile, weight_tile.T, total, out_dtype=SUM)
        m = row_tile * TILE_ROWS + tl.arange(0, TILE_ROWS)
        n = output_tile * TILE_OUTPUTS + tl.arange(0, TILE_OUTPUTS)
        scaled = _scale(total, row_scales, channel_scales, bias, m, n, rows, outputs)
        tl.store(
            out + m[:, None].to(tl.int64) * outputs + n[None, :],
            scaled.to(out.dtype.element_ty),
            mask=(m < rows)[:, None] & (n < outputs)[None, :],
        )


@triton.jit
def _scale(total, row_scales, channel_scales, bias, m, n, rows, outputs):
    """Sums [rows, outputs] with their scales and bias, in float32."""
    by_row = tl.load(row_scales + m, mask=m < rows, other=0.0)
    by_channel = tl.load(channel_scales + n, mask=n < outputs, other=0.0)
    scaled = total.to(tl.float32) * (by_row[:, None] * by_channel[None, :])
    if bias is not None:
        scaled += tl.load(bias + n, mask=n < outputs, other=0.0).to(tl.float32)[None, :]
    return scaled
