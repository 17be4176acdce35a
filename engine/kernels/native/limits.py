"""What the kernels in C can run."""

import torch

from engine.config import ModelConfig
from engine.kernels.native.cache import TILE
from engine.kernels.native.library import LANES

MAX_WIDTH = 256  # of a head
MAX_HIDDEN = 16_384  # floats of a row that is kept on the stack


def obstacle(model: ModelConfig, block_size: int, dtype: torch.dtype) -> str | None:
    """Why a model cannot run on them, in words that end a sentence; ``None`` where it can."""
    attention_width = model.num_heads * model.head_dim
    for what, width in (
        ("hidden size", model.hidden_size),
        ("feed-forward size", model.intermediate_size),
        ("head size", model.head_dim),
    ):
        if width % LANES:
            return f"its {what}, {width}, is not a multiple of {LANES}"
    if model.head_dim > MAX_WIDTH:
        return f"its heads are wider than {MAX_WIDTH}"
    if max(model.hidden_size, attention_width) > MAX_HIDDEN:
        return f"it is wider than {MAX_HIDDEN}"
    if block_size % TILE:
        return f"blocks of {block_size} tokens are not a multiple of {TILE}"
    if dtype not in (torch.float32, torch.bfloat16):
        return f"{str(dtype).removeprefix('torch.')} is for GPUs"
    return None
