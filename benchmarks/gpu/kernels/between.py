"""Cases of the passes between products."""

import torch

from engine.kernels.fused.kernels import activations
from engine.kernels.hadamard import hadamard_count
from gpu.kernels.cases import Case, Launch, Written
from gpu.kernels.inputs import Inputs, named, written
from gpu.shapes import LLAMA3_8B


def add_norm(inputs: Inputs, tokens: int, dtype: torch.dtype) -> Case:
    """Added, normed and rounded to a dtype."""
    hidden = inputs.model(LLAMA3_8B).hidden_size

    def make() -> tuple[Launch, Written]:
        update, weight = inputs.normal(tokens, hidden), inputs.normal(hidden)
        residual = inputs.normal(tokens, hidden, dtype=torch.float32)
        out = activations(tokens, hidden, dtype, inputs.device)
        return (
            lambda kit: kit.fused.add_norm(update, residual, weight, 1e-5, out),
            lambda: written(out, residual),
        )

    count = tokens * hidden
    read, wrote = (inputs.dtype.itemsize + 4) * count, (4 + dtype.itemsize) * count
    name = f"add_norm {tokens:,} {named(dtype)}"
    return Case(name, read, wrote, 0, inputs.dtype, make)


def gate(inputs: Inputs, tokens: int, dtype: torch.dtype, *, transformed: bool = False) -> Case:
    """Gated and rounded to a dtype, through Hadamard transforms where it is transformed."""
    inner = inputs.model(LLAMA3_8B).intermediate_size
    hadamard = hadamard_count(inner) if transformed else 1

    def make() -> tuple[Launch, Written]:
        gate_up = inputs.normal(tokens, 2 * inner)
        out = activations(tokens, inner, dtype, inputs.device)
        return lambda kit: kit.fused.gate(gate_up, out, hadamard), lambda: written(out)

    count = tokens * inner
    return Case(
        f"gate {tokens:,} {named(dtype)}{' transformed' if transformed else ''}",
        2 * inputs.dtype.itemsize * count,
        dtype.itemsize * count,
        0,
        inputs.dtype,
        make,
        interpreted=dtype == inputs.dtype,
    )
