"""Gumbel noise from a hash of seed, position and token id; see `SamplingKernels`."""

import triton
import triton.language as tl

from engine.kernels.triton.sampling.rows import SEED_HIGH, SEED_LOW, whole


@triton.jit
def _spread(x):
    """SplitMix64's finalizer of a uint64."""
    x = x + 0x9E3779B97F4A7C15
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB
    return x ^ (x >> 31)


@triton.jit
def noise(ids, slot, position, table):
    """float32 Gumbel noise of a slot's tokens at a position."""
    low = whole(table, slot, SEED_LOW).to(tl.uint32, bitcast=True).to(tl.uint64)
    high = whole(table, slot, SEED_HIGH).to(tl.uint32, bitcast=True).to(tl.uint64)
    row = _spread((high << 32 | low) + _spread(position.to(tl.uint64)))
    x = ids.to(tl.uint32) * 0x9E3779B9 + row.to(tl.uint32)
    x = (x ^ (x >> 16)) * 0x7FEB352D + (row >> 32).to(tl.uint32)
    x = (x ^ (x >> 15)) * 0x846CA68B
    x = x ^ (x >> 16)
    v = tl.minimum(x.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10, 0.99999994)
    # -log(1 - v), by its series where the subtraction would lose bits.
    series = v * (1.0 + v * (0.5 + v * (0.3333333333333333 + v * 0.25)))
    return -tl.log(tl.where(v < 0.015625, series, -tl.log(1.0 - v)))
