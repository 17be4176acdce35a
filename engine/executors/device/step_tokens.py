"""How many tokens a step may have on a card, where the configuration leaves it open."""

import torch

from engine.config import ModelConfig
from engine.executors.device.buffers import buffer_bytes
from engine.executors.machine import GIB

MOST, USUAL, FEWEST = 16_384, 8_192, 2_048

# Of what weights leave free, activations may take so much: what they take the cache has not.
_SHARE_OF_MOST = 1 / 16
_SHARE = 1 / 4

# The narrowest products of small models give 8,192 rows some 250 to 500 tiles: a hundred
# multiprocessors are through in two to five rounds, the last of which may be nearly empty.
_MANY_MULTIPROCESSORS = 100


def step_tokens(
    model: ModelConfig, dtype: torch.dtype, max_num_seqs: int, free: int, multiprocessors: int
) -> tuple[int, str]:
    """Tokens of a step, and why.

    More tokens a step read the weights less often and fill a large card more evenly. But memory
    for activations is taken once, for the largest step.

    Args:
        model: its widths say what the activations of a step take.
        dtype: the model's.
        max_num_seqs: most sequences of a step; their logits share memory with the activations.
        free: bytes that the weights leave free on the device.
        multiprocessors: of the device.
    """

    def taken(tokens: int) -> int:
        return buffer_bytes(model, tokens, max_num_seqs, dtype)

    def said(tokens: int) -> str:
        return f"{taken(tokens) / GIB:.1f} of {free / GIB:.1f} GiB free"

    if taken(USUAL) > free * _SHARE:
        tokens = USUAL // 2
        while tokens > FEWEST and taken(tokens) > free * _SHARE:
            tokens //= 2
        return tokens, f"{tokens:,} tokens a step, whose activations take {said(tokens)}"
    if multiprocessors < _MANY_MULTIPROCESSORS:
        return USUAL, f"{USUAL:,} tokens a step, enough for {multiprocessors} multiprocessors"
    if taken(MOST) > free * _SHARE_OF_MOST:
        return USUAL, f"{USUAL:,} tokens a step, as activations of {MOST:,} would take {said(MOST)}"
    return MOST, (
        f"{MOST:,} tokens a step, whose activations take {said(MOST)}, for {multiprocessors} "
        "multiprocessors"
    )
