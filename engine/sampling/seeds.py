"""Seeds of 64 bits."""

import numpy as np
from numpy.typing import NDArray


def spread(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 well-spread bits of each number (the finalizer of SplitMix64, Steele et al. 2014)."""
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def combined(seed: int, index: int) -> np.uint64:
    """A seed, which may be of any size and sign, and the output's index, in 64 bits."""
    words = np.array([seed % 2**64, (seed >> 64) % 2**64, index], dtype=np.uint64)
    first, second, third = spread(words)
    found: np.uint64 = spread(np.array([first ^ (second << np.uint64(1)) ^ third]))[0]
    return found
