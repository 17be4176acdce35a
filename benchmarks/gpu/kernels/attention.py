"""Cases of attention, and of what writes its cache."""

import numpy as np
import torch

from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.rope import RotaryTable
from gpu.kernels.cases import EXACT, Case, Launch, Written
from gpu.kernels.inputs import BLOCK_SIZE, FP8, HostStep, Inputs, named
from gpu.kernels.kits import Kits
from gpu.shapes import LLAMA3_8B

# A number of fp8 that lies between two steps may fall to either, a sixteenth of it apart.
_FLIPPED = 5e-2
_FEW_BLOCKS = 16


def _tasks(kits: Kits, model: str, step: HostStep, inputs: Inputs, cascade: bool) -> AttentionTasks:
    """The division of a step, with its arrays on the device."""
    maker = kits.maker(model, cascade)
    fields = {name: np.zeros(size, dtype=np.int32) for name, size in maker.sizes.items()}
    tasks = maker.make(
        fields,
        step.starts,
        step.contexts,
        step.slots,
        step.tables,
        num_decodes=int((np.diff(step.starts) == 1).sum()),
    )
    return tasks.on({name: inputs.ints(array) for name, array in fields.items()})


def _attention(
    inputs: Inputs,
    kits: Kits,
    name: str,
    model: str,
    step: HostStep,
    dtype: torch.dtype,
    keys: int,
    cascade: bool = True,
    beside: Case | None = None,
) -> Case:
    """A case of ``keys`` different keys."""
    shape = inputs.model(model)
    heads, dim = shape.num_heads, shape.head_dim
    width = shape.num_kv_heads * dim
    tokens = int(step.starts[-1])
    counts = np.diff(step.starts).astype(np.int64)
    pairs = int((counts * step.contexts - counts * (counts - 1) // 2).sum())

    def make() -> tuple[Launch, Written]:
        tensors = step.tensors(inputs)
        tasks = _tasks(kits, model, step, inputs, cascade)
        cache = inputs.cache(shape, step.blocks, dtype)
        queries = inputs.normal(tokens, heads, dim)
        out = inputs.normal(tokens, heads * dim)
        return (
            lambda kit: kit.fused.attention(queries, cache, tensors, tasks, dim**-0.5, None, out),
            lambda: [out.view(-1, dim)],
        )

    scales = 8 * keys * shape.num_kv_heads if dtype.itemsize == 1 else 0
    moved = tokens * heads * dim * inputs.dtype.itemsize
    return Case(
        name,
        2 * keys * width * dtype.itemsize + scales + moved,
        moved,
        4 * pairs * heads * dim,
        inputs.dtype,
        make,
        model=model,
        beside=beside,
        interpreted=step.tables.size <= _FEW_BLOCKS and dtype == inputs.dtype,
    )


def decode(
    inputs: Inputs, kits: Kits, sequences: int, context: int, dtype: torch.dtype, model: str
) -> Case:
    """One token each."""
    shape = inputs.model(model)
    heads = f"{shape.num_heads}/{shape.num_kv_heads}"
    name = f"decode {sequences} x {context:,}, heads {heads}, {named(dtype)}"
    step = HostStep.of([1] * sequences, [context] * sequences)
    return _attention(inputs, kits, name, model, step, dtype, sequences * context)


def prefill(inputs: Inputs, kits: Kits, tokens: int, context: int, dtype: torch.dtype) -> Case:
    """The last tokens of one prompt."""
    name = f"prefill {tokens:,} of {context:,}, {named(dtype)}"
    step = HostStep.of([tokens], [context])
    return _attention(inputs, kits, name, LLAMA3_8B, step, dtype, context)


def shared(
    inputs: Inputs, kits: Kits, sequences: int, group: int, prefix: int, own: int
) -> tuple[Case, Case]:
    """Decodes that have prefixes in common: without segments, then with them."""
    name = f"shared {sequences} by {group}, {prefix:,} + {own}"
    step = HostStep.of([1] * sequences, [prefix + own] * sequences, group=group, prefix=prefix)
    keys = sequences * own + sequences // group * prefix

    def case(end: str, cascade: bool, beside: Case | None) -> Case:
        return _attention(
            inputs,
            kits,
            f"{name}, {end}",
            LLAMA3_8B,
            step,
            inputs.dtype,
            keys,
            cascade,
            beside,
        )

    plain = case("no cascade", False, None)
    return plain, case("cascade", True, plain)


def rotate(inputs: Inputs, tokens: int, dtype: torch.dtype) -> Case:
    """Rotated, and written to a cache of a dtype."""
    shape = inputs.model(LLAMA3_8B)
    heads, dim = shape.num_heads + 2 * shape.num_kv_heads, shape.head_dim

    def make() -> tuple[Launch, Written]:
        qkv = inputs.normal(tokens, heads * dim)
        step = HostStep.of([tokens], [tokens]).tensors(inputs)
        cache = inputs.cache(shape, -(-tokens // BLOCK_SIZE), dtype)
        frequencies = 10_000.0 ** -torch.linspace(0, 1, dim // 2)
        table = RotaryTable.build(frequencies, tokens, inputs.device)
        queries = inputs.normal(tokens, shape.num_heads, dim)
        scales = [] if cache.key_scales is None else [cache.key_scales, cache.value_scales]
        return (
            lambda kit: kit.fused.rotate_and_store(qkv, None, table, step, cache, queries),
            lambda: [queries, cache.keys, cache.values, *(x for x in scales if x is not None)],
        )

    width = tokens * dim
    stored = 2 * shape.num_kv_heads * width * dtype.itemsize
    size = inputs.dtype.itemsize
    return Case(
        f"rotate_and_store {tokens:,} {named(dtype)}",
        size * heads * width,
        size * shape.num_heads * width + stored,
        0,
        inputs.dtype,
        make,
        most_error=_FLIPPED if dtype == FP8 else EXACT,
    )
