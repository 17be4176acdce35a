"""What the passes are measured on: shapes of Llama 3.1 8B, random numbers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from engine.kernels.fused.kernels import FusedKernels, activations
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import Activations, LayerCache, StepTensors
from engine.kernels.fused.weights import DeviceWeight, Float8Weight
from engine.kernels.grouped import GroupedWeight
from engine.kernels.int8 import Int8Weight
from engine.kernels.rope import RotaryTable
from gpu.cases import Case, Launch, Written

BF16, INT8, FP8 = torch.bfloat16, torch.int8, torch.float8_e4m3fn
_GROUP = 128
_BLOCK_SIZE = 16
_LARGEST = {INT8: 127.0, FP8: 448.0}


@dataclass(frozen=True, slots=True)
class Sizes:
    """What is measured.

    Attributes:
        decodes: keys of a sequence, and sequences.
        prefills: tokens of one sequence, and its keys.
        weights: outputs and inputs of products; ``rows`` of activations.
        tokens: of the passes between products.
    """

    decodes: tuple[tuple[int, int], ...]
    prefills: tuple[tuple[int, int], ...]
    weights: tuple[tuple[int, int], ...]
    rows: tuple[int, ...]
    tokens: tuple[int, ...]

    @classmethod
    def true(cls) -> "Sizes":
        """For a GPU."""
        return cls(
            ((1024, 256), (16_384, 16), (4096, 64)),
            ((2048, 8192), (8192, 8192)),
            ((28_672, 4096), (4096, 14_336)),
            (1, 16, 64, 256, 2048),
            (256, 2048),
        )

    @classmethod
    def toy(cls) -> "Sizes":
        """For a trial run."""
        return cls(((48, 3),), ((5, 40),), ((256, 128),), (2,), (3,))


class Inputs:
    """Makes cases on a device.

    Args:
        device: where tensors are.

    Attributes:
        float8: whether the device multiplies them.
    """

    def __init__(self, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self.float8 = not on_gpu or torch.cuda.get_device_capability(device) >= (8, 9)
        self._device = device
        self._generator = torch.Generator(device).manual_seed(0)
        small = not on_gpu
        self.heads, self.kv_heads, self.dim = (4, 2, 32) if small else (32, 8, 128)
        self.hidden, self.inner = (128, 256) if small else (4096, 14_336)

    def _normal(self, *shape: int, dtype: torch.dtype = BF16) -> Tensor:
        wide = torch.float32 if dtype.itemsize == 1 else dtype
        x = torch.empty(shape, dtype=wide, device=self._device).normal_(generator=self._generator)
        return _to_eight_bits(x, dtype) if dtype.itemsize == 1 else x

    def _ints(self, values: list[int] | Tensor) -> Tensor:
        return torch.as_tensor(values, dtype=torch.int32).to(self._device)

    def _cache(self, blocks: int, dtype: torch.dtype) -> LayerCache:
        shape = (blocks, _BLOCK_SIZE, self.kv_heads, self.dim)
        keys, values = self._normal(*shape, dtype=dtype), self._normal(*shape, dtype=dtype)
        if dtype.itemsize > 1:
            return LayerCache(keys, values)
        scales = torch.full(shape[:3], 3 / _LARGEST[dtype], device=self._device)
        return LayerCache(keys, values, scales, scales.clone())

    def _step(self, counts: list[int], contexts: list[int]) -> StepTensors:
        """Sequences over shuffled blocks; their last tokens are the step's."""
        widths = [-(-context // _BLOCK_SIZE) for context in contexts]
        order = torch.randperm(sum(widths), generator=torch.Generator().manual_seed(1))
        tables = torch.zeros(len(counts), max(widths), dtype=torch.int32)
        start = 0
        for row, width in enumerate(widths):
            tables[row, :width] = order[start : start + width]
            start += width
        positions = torch.cat(
            [torch.arange(c - n, c) for n, c in zip(counts, contexts, strict=True)]
        )
        owners = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        blocks = tables[owners, positions // _BLOCK_SIZE]
        starts = torch.tensor([0, *counts]).cumsum(0)
        return StepTensors(
            token_ids=self._ints(positions),
            positions=self._ints(positions),
            cache_slots=self._ints(blocks * _BLOCK_SIZE + positions % _BLOCK_SIZE),
            query_start=self._ints(starts),
            contexts=self._ints(contexts),
            slots=self._ints(list(range(len(counts)))),
            block_tables=self._ints(tables),
        )

    def _attention(
        self, name: str, counts: list[int], contexts: list[int], dtype: torch.dtype
    ) -> Case:
        tokens, keys = sum(counts), sum(contexts)
        decodes = counts.count(1)
        tasks = AttentionTasks(decodes, len(counts) - decodes, max(contexts))
        pairs = sum(n * c - n * (n - 1) // 2 for n, c in zip(counts, contexts, strict=True))
        width = self.kv_heads * self.dim

        def make() -> tuple[Launch, Written]:
            step = self._step(counts, contexts)
            cache = self._cache(sum(-(-c // _BLOCK_SIZE) for c in contexts), dtype)
            queries = self._normal(tokens, self.heads, self.dim)
            out = self._normal(tokens, self.heads * self.dim)
            scale = self.dim**-0.5
            return (
                lambda kernels: kernels.attention(queries, cache, step, tasks, scale, None, out),
                lambda: [out],
            )

        scales = 8 * keys * self.kv_heads if dtype.itemsize == 1 else 0
        return Case(
            name,
            2 * keys * width * dtype.itemsize + scales + 2 * tokens * self.heads * self.dim,
            2 * tokens * self.heads * self.dim,
            4 * pairs * self.heads * self.dim,
            BF16,
            make,
        )

    def decode(self, sequences: int, context: int, dtype: torch.dtype) -> Case:
        """One token each."""
        name = f"decode {sequences} x {context:,} {_named(dtype)}"
        return self._attention(name, [1] * sequences, [context] * sequences, dtype)

    def prefill(self, tokens: int, context: int) -> Case:
        """The last tokens of one prompt."""
        return self._attention(f"prefill {tokens:,} of {context:,}", [tokens], [context], BF16)

    def product(self, rows: int, outputs: int, inputs: int, kind: str) -> Case:
        """Activations [rows, inputs] times a weight [outputs, inputs]."""
        dtype = {"int8": INT8, "float8_e4m3fn": FP8}.get(kind, BF16)
        weight_bytes = outputs * inputs * dtype.itemsize
        if kind == "int4":
            weight_bytes = outputs * inputs // 2 + 4 * outputs * inputs // _GROUP

        def make() -> tuple[Launch, Written]:
            weight = self._weight(outputs, inputs, kind)
            values = self._normal(rows, inputs, dtype=dtype)
            scales = None
            if dtype.itemsize == 1:
                scales = torch.full((rows,), 3 / _LARGEST[dtype], device=self._device)
            x = Activations(values, scales)
            out = self._normal(rows, outputs)
            packed: dict[int, DeviceWeight] = {}

            def launch(kernels: FusedKernels) -> None:
                if id(kernels) not in packed:
                    packed[id(kernels)] = kernels.pack(weight)
                kernels.product(x, packed[id(kernels)], None, out)

            return launch, lambda: [out]

        return Case(
            f"product {rows:,} x {outputs:,} x {inputs:,} {kind}",
            weight_bytes + rows * inputs * dtype.itemsize,
            2 * rows * outputs,
            2 * rows * outputs * inputs,
            dtype,
            make,
        )

    def _weight(self, outputs: int, inputs: int, kind: str) -> DeviceWeight:
        if kind == "bf16":
            return self._normal(outputs, inputs)
        scales = torch.full((outputs,), 1 / 127, device=self._device)
        if kind == "int8":
            return Int8Weight(self._normal(outputs, inputs, dtype=INT8), scales)
        if kind != "int4":
            return Float8Weight(self._normal(outputs, inputs, dtype=FP8), scales)
        group = min(_GROUP, inputs)
        values = torch.empty(outputs, inputs, dtype=torch.uint8, device=self._device)
        values.random_(0, 16, generator=self._generator)
        steps = torch.rand(outputs, inputs // group, device=self._device) * 0.1 + 0.1
        return GroupedWeight(values, steps, -8 * steps, 4)

    def add_norm(self, tokens: int, dtype: torch.dtype) -> Case:
        """Added, normed and rounded to a dtype."""

        def make() -> tuple[Launch, Written]:
            update, weight = self._normal(tokens, self.hidden), self._normal(self.hidden)
            residual = self._normal(tokens, self.hidden, dtype=torch.float32)
            out = activations(tokens, self.hidden, dtype, self._device)
            return (
                lambda kernels: kernels.add_norm(update, residual, weight, 1e-5, out),
                lambda: _written(out, residual),
            )

        count = tokens * self.hidden
        name = f"add_norm {tokens:,} {_named(dtype)}"
        return Case(name, 6 * count, (4 + dtype.itemsize) * count, 0, BF16, make)

    def gate(self, tokens: int, dtype: torch.dtype) -> Case:
        """Gated and rounded to a dtype."""

        def make() -> tuple[Launch, Written]:
            gate_up = self._normal(tokens, 2 * self.inner)
            out = activations(tokens, self.inner, dtype, self._device)
            return lambda kernels: kernels.gate(gate_up, out), lambda: _written(out)

        count = tokens * self.inner
        name = f"gate {tokens:,} {_named(dtype)}"
        return Case(name, 4 * count, dtype.itemsize * count, 0, BF16, make)

    def rotate(self, tokens: int, dtype: torch.dtype) -> Case:
        """Rotated, and written to a cache of a dtype."""
        heads = self.heads + 2 * self.kv_heads

        def make() -> tuple[Launch, Written]:
            qkv = self._normal(tokens, heads * self.dim)
            step = self._step([tokens], [tokens])
            cache = self._cache(-(-tokens // _BLOCK_SIZE), dtype)
            table = RotaryTable.build(torch.rand(self.dim // 2), tokens, self._device)
            queries = self._normal(tokens, self.heads, self.dim)
            return (
                lambda kernels: kernels.rotate_and_store(qkv, None, table, step, cache, queries),
                lambda: [queries, cache.keys, cache.values],
            )

        width = tokens * self.dim
        stored = 2 * self.kv_heads * width * dtype.itemsize
        name = f"rotate_and_store {tokens:,} {_named(dtype)}"
        return Case(name, 2 * heads * width, 2 * self.heads * width + stored, 0, BF16, make)


def _written(out: Activations, *more: Tensor) -> list[Tensor]:
    return [out.values, *([] if out.scales is None else [out.scales]), *more]


def _to_eight_bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    scaled = (x.clamp(-3, 3) * (_LARGEST[dtype] / 3)).to(torch.float32)
    return (scaled.round() if dtype == INT8 else scaled).to(dtype)


def _named(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
