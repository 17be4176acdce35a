"""All passes of a step in Triton."""

import torch

from engine.kernels.fused.backend import Limits
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.triton.attention.attention import TritonAttention
from engine.kernels.triton.attention.tiles import row_choices
from engine.kernels.triton.passes.passes import TritonPasses
from engine.kernels.triton.products.products import TritonProducts

HOPPER = (9, 0)
"""What kernels are chosen for off a GPU, in the interpreter."""

_MULTIPROCESSORS = 132  # of an H100 or H200


def task_maker(device: torch.device, limits: Limits) -> TaskMaker:
    """What divides attention for the tiles of `TritonAttention` on a device."""
    multiprocessors = _MULTIPROCESSORS
    if device.type == "cuda":
        multiprocessors = torch.cuda.get_device_properties(device).multi_processor_count
    model = limits.model
    group = model.num_heads // model.num_kv_heads
    rows = row_choices(_capability(device), group, model.head_dim)
    return TaskMaker(limits.attention_shape(multiprocessors, *rows))


def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device) if device.type == "cuda" else HOPPER


class TritonFused:
    """See `engine.kernels.fused.kernels.FusedKernels`.

    Args:
        device: where tensors are.
        limits: what workspaces are made for.
        max_pieces: see `TaskMaker`.
    """

    def __init__(self, device: torch.device, limits: Limits, max_pieces: int) -> None:
        capability, model = _capability(device), limits.model
        passes = TritonPasses()
        self.embed = passes.embed
        self.add_norm = passes.add_norm
        self.rotate_and_store = passes.rotate_and_store
        self.gate = passes.gate
        self.round_rows = passes.round_rows
        products = TritonProducts(device, limits.dtype, limits.max_tokens, capability=capability)
        self.pack = products.pack
        self.product = products.product
        heads, kv_heads, dim = model.num_heads, model.num_kv_heads, model.head_dim
        attention = TritonAttention(heads, kv_heads, dim, max_pieces, capability, device)
        self.attention = attention.attention
