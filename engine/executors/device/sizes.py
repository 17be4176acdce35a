"""The numbers of sequences and tokens that steps are rounded up to."""


def padded_sequences(count: int, most: int) -> int:
    """The smallest size that holds ``count`` sequences, at most ``most``.

    Sizes are 1, 2, 4, then steps of an eighth to a quarter of the number: every size has graphs of
    its own, and padding costs time.
    """
    return _padded(count, most, fewest_steps=8)


def padded_tokens(count: int, most: int) -> int:
    """The smallest size that holds ``count`` tokens of a step with prompts, at most ``most``."""
    return _padded(count, most, fewest_steps=64)


def _padded(count: int, most: int, *, fewest_steps: int) -> int:
    """Multiples of a power of two: of ``fewest_steps`` up to eight of them, then of an eighth."""
    if count >= most:
        return most
    if count < fewest_steps:
        size = 1 << (count - 1).bit_length() if count > 1 else 1
    else:
        step = max(fewest_steps, 1 << ((count - 1).bit_length() - 3))
        size = -(-count // step) * step
    return min(size, most)


def all_sizes(most: int) -> list[int]:
    """Every size that `padded_sequences` gives for up to ``most`` sequences."""
    return sorted({padded_sequences(count, most) for count in range(1, most + 1)})
