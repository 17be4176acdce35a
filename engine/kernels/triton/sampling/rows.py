"""What every kernel of sampling reads: a slot's numbers, and logits with all that changes them."""

import triton
import triton.language as tl

from engine.kernels.fused.sampling import IN_PROMPT, Column

INVERSE_TEMPERATURE = tl.constexpr(int(Column.INVERSE_TEMPERATURE))
TOP_P = tl.constexpr(int(Column.TOP_P))
MIN_P = tl.constexpr(int(Column.MIN_P))
TOP_K = tl.constexpr(int(Column.TOP_K))
SEED_LOW = tl.constexpr(int(Column.SEED_LOW))
SEED_HIGH = tl.constexpr(int(Column.SEED_HIGH))
REPETITION = tl.constexpr(int(Column.REPETITION))
PRESENCE = tl.constexpr(int(Column.PRESENCE))
FREQUENCY = tl.constexpr(int(Column.FREQUENCY))
COUNT_ROW = tl.constexpr(int(Column.COUNT_ROW))
LIST_ROW = tl.constexpr(int(Column.LIST_ROW))
BIASED = tl.constexpr(int(Column.BIASED))
BANNED = tl.constexpr(int(Column.BANNED))
FREE_FROM = tl.constexpr(int(Column.FREE_FROM))
FILTERED = tl.constexpr(int(Column.FILTERED))
REPORTED = tl.constexpr(int(Column.REPORTED))
COLUMNS = tl.constexpr(len(Column))
COUNT_BITS = tl.constexpr(IN_PROMPT - 1)
LARGEST = tl.constexpr(3.4028234663852886e38)
LAST_ID = tl.constexpr(2**31 - 1)


@triton.jit
def whole(table, slot, COLUMN: tl.constexpr):
    """A whole number of a slot."""
    return tl.load(table + slot * COLUMNS + COLUMN)


@triton.jit
def real(table, slot, COLUMN: tl.constexpr):
    """A float of a slot."""
    return tl.load(table + slot * COLUMNS + COLUMN).to(tl.float32, bitcast=True)


@triton.jit
def load_logits(logits, row, ids, VOCAB: tl.constexpr, STRIDE: tl.constexpr):
    """float32 logits of a row; NaN is -infinity, and nothing is above the largest number."""
    x = tl.load(logits + row.to(tl.int64) * STRIDE + ids, mask=ids < VOCAB, other=float("-inf")).to(
        tl.float32
    )
    return tl.minimum(tl.where(x == x, x, float("-inf")), LARGEST)


@triton.jit
def adjusted(x, ids, slot, position, table, counts, lists, width, VOCAB: tl.constexpr):
    """Logits with the slot's biases, penalties and bans.

    Args:
        x, ids: float32 logits of one row and their token ids.
        slot, position: of the row.
        table, counts, lists: see `SamplerTensors`.
        width: half a row of ``lists``.
    """
    list_row = whole(table, slot, LIST_ROW)
    listed = lists + list_row.to(tl.int64) * 2 * width
    biased = tl.where(list_row >= 0, whole(table, slot, BIASED), 0)
    for n in range(biased):
        bias = tl.load(listed + width + n).to(tl.float32, bitcast=True)
        x = tl.where(ids == tl.load(listed + n), x + bias, x)
    count_row = whole(table, slot, COUNT_ROW)
    if count_row >= 0:
        count = tl.load(counts + count_row.to(tl.int64) * VOCAB + ids, mask=ids < VOCAB, other=0)
        penalty = real(table, slot, REPETITION)
        penalized = tl.where(x > 0, x / penalty, x * penalty)
        x = tl.where(count != 0, penalized, x)
        times = count & COUNT_BITS
        taken = real(table, slot, FREQUENCY) * times.to(tl.float32) + real(table, slot, PRESENCE)
        x = tl.where(times > 0, x - taken, x)
    banning = (list_row >= 0) & (position < whole(table, slot, FREE_FROM))
    banned = tl.where(banning, whole(table, slot, BANNED), 0)
    for n in range(banned):
        x = tl.where(ids == tl.load(listed + biased + n), float("-inf"), x)
    return x


@triton.jit
def order(x):
    """float32 to int32 in the same order, and its inverse on the bits: both are one function."""
    bits = x.to(tl.int32, bitcast=True)
    return tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)


@triton.jit
def unordered(key):
    """The float32 that `order` made an integer of."""
    return tl.where(key < 0, key ^ 0x7FFFFFFF, key).to(tl.float32, bitcast=True)
