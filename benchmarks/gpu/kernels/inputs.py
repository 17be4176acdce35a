"""What the passes are measured on: shapes of true models, random numbers."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.fused.tensors import Activations, LayerCache, StepTensors
from gpu.shapes import model_config

INT8, FP8 = torch.int8, torch.float8_e4m3fn
LARGEST = {INT8: 127.0, FP8: 448.0}
BLOCK_SIZE = 16

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        decodes: sequences, and keys of each.
        shared: sequences, how many share a prefix, its keys, and each sequence's own.
        prefills: tokens of one sequence, and its keys.
        weights: outputs and inputs of products; ``rows`` of activations.
        four_bits: the same where weights of 4 bits are held to marks, with ``four_rows``: rows of
            activations, and how much faster than bfloat16 they must be.
        tokens: of the passes between products.
        logits: rows and width.
        max_tokens, max_sequences: of any step.
    """

    decodes: tuple[tuple[int, int], ...]
    shared: tuple[tuple[int, int, int, int], ...]
    prefills: tuple[tuple[int, int], ...]
    weights: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    four_bits: tuple[int, int]
    four_rows: tuple[tuple[int, float], ...]
    tokens: tuple[int, ...]
    logits: tuple[int, int]
    max_tokens: int
    max_sequences: int

    @classmethod
    def true(cls) -> "Sizes":
        """For a GPU."""
        return cls(
            decodes=((256, 1024), (16, 16_384), (64, 4096)),
            shared=((64, 16, 1024, 256), (256, 8, 1024, 256), (256, 16, 1024, 256)),
            prefills=((2048, 8192), (8192, 8192)),
            weights=((28_672, 4096), (4096, 14_336)),
            rows=(1, 16, 64, 256, 2048, 8192),
            four_bits=(16_384, 16_384),
            four_rows=((1, 2.6), (16, 2.6), (64, 1.85), (128, 0.97), (256, 0.97)),
            tokens=(256, 2048),
            logits=(256, 128_256),
            max_tokens=8192,
            max_sequences=256,
        )

    @classmethod
    def toy(cls) -> "Sizes":
        """For a trial run."""
        return cls(
            decodes=((3, 48),),
            shared=((16, 8, 256, 5),),
            prefills=((5, 40),),
            weights=((256, 128),),
            rows=(2,),
            four_bits=(128, 128),
            four_rows=((1, 0.0),),
            tokens=(3,),
            logits=(3, 5000),
            max_tokens=64,
            max_sequences=16,
        )


class Inputs:
    """Random numbers on a device.

    Args:
        device: where tensors are.

    Attributes:
        device: the same.
        toy: whether shapes are toys.
        dtype: of models.
        eight_bits: the dtypes of 8 bits that the device multiplies.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.toy = device.type != "cuda"
        # Triton's interpreter multiplies no bfloat16.
        self.dtype = torch.float32 if self.toy else torch.bfloat16
        has_fp8 = self.toy or torch.cuda.get_device_capability(device) >= (8, 9)
        self.eight_bits = (INT8, FP8) if has_fp8 else (INT8,)
        self._generator = torch.Generator(device).manual_seed(0)

    def model(self, name: str) -> ModelConfig:
        """The shape of a model, or of a toy."""
        return model_config(name, toy=self.toy)

    def normal(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Of the models' dtype, or scaled to 8 bits."""
        dtype = dtype or self.dtype
        wide = torch.float32 if dtype.itemsize == 1 else dtype
        x = torch.empty(shape, dtype=wide, device=self.device).normal_(generator=self._generator)
        if dtype.itemsize > 1:
            return x
        scaled = x.clamp_(-3, 3).mul_(LARGEST[dtype] / 3)
        return (scaled.round_() if dtype == INT8 else scaled).to(dtype)

    def digits(self, *shape: int) -> Tensor:
        """uint8 from 0 to 15."""
        values = torch.empty(shape, dtype=torch.uint8, device=self.device)
        return values.random_(0, 16, generator=self._generator)

    def uniform(self, *shape: int) -> Tensor:
        """float32 from 0 to 1."""
        return torch.rand(shape, device=self.device, generator=self._generator)

    def ints(self, values: Ints) -> Tensor:
        """int32."""
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int32)).to(self.device)

    def cache(self, model: ModelConfig, blocks: int, dtype: torch.dtype) -> LayerCache:
        """One layer's."""
        shape = (blocks, BLOCK_SIZE, model.num_kv_heads, model.head_dim)
        keys, values = self.normal(*shape, dtype=dtype), self.normal(*shape, dtype=dtype)
        if dtype.itemsize > 1:
            return LayerCache(keys, values)
        scales = (self.uniform(*shape[:3]) + 0.5) * (3 / LARGEST[dtype])
        return LayerCache(keys, values, scales, scales.flip(0).contiguous())


@dataclass(frozen=True, slots=True)
class HostStep:
    """A step's index arrays on the host; see `StepTensors`."""

    starts: Ints
    contexts: Ints
    tables: Ints

    @classmethod
    def of(
        cls, counts: list[int], contexts: list[int], *, group: int = 1, prefix: int = 0
    ) -> "HostStep":
        """Sequences over shuffled blocks; their last tokens are the step's.

        Args:
            counts: tokens of each.
            contexts: keys of each.
            group: neighbours that have their first blocks in common.
            prefix: keys in these, a multiple of the block size.
        """
        widths = [-(-context // BLOCK_SIZE) for context in contexts]
        order = np.random.default_rng(1).permutation(sum(widths)).astype(np.int32)
        tables = np.zeros((len(counts), max(widths)), np.int32)
        start = 0
        for row, width in enumerate(widths):
            tables[row, :width] = order[start : start + width]
            start += width
        common = prefix // BLOCK_SIZE
        tables[:, :common] = tables[np.arange(len(counts)) // group * group, :common]
        starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
        return cls(starts, np.array(contexts, np.int32), tables)

    @property
    def blocks(self) -> int:
        """Of the cache."""
        return int(self.tables.max()) + 1

    @property
    def slots(self) -> Ints:
        """Each sequence has the row of its number."""
        return np.arange(len(self.contexts), dtype=np.int32)

    def tensors(self, inputs: Inputs) -> StepTensors:
        """The same on the device."""
        counts = np.diff(self.starts)
        owners = np.repeat(self.slots, counts)
        positions = (self.contexts - self.starts[1:])[owners] + np.arange(self.starts[-1])
        blocks = self.tables[owners, positions // BLOCK_SIZE]
        return StepTensors(
            token_ids=inputs.ints(positions),
            positions=inputs.ints(positions),
            cache_slots=inputs.ints(blocks * BLOCK_SIZE + positions % BLOCK_SIZE),
            query_start=inputs.ints(self.starts),
            contexts=inputs.ints(self.contexts),
            slots=inputs.ints(self.slots),
            block_tables=inputs.ints(self.tables),
        )


def written(out: Activations, *more: Tensor) -> list[Tensor]:
    """What a pass wrote to activations, and more."""
    return [out.values, *([] if out.scales is None else [out.scales]), *more]


def named(dtype: torch.dtype) -> str:
    """For a case."""
    return str(dtype).removeprefix("torch.").replace("float8_e4m3fn", "fp8")
