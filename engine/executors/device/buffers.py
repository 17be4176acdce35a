"""The memory of a step's activations, taken once for the largest step."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.fused.kernels import activations
from engine.kernels.fused.tensors import Activations


@dataclass(frozen=True, slots=True)
class Buffers:
    """Of T tokens and N sampled ones, or of the first few of them (`rows`, `picked_rows`).

    Attributes:
        residual: float32 [T, hidden].
        update: [T, hidden]; what a layer adds to the residual stream.
        hidden: [T, hidden], behind a norm, as the next product takes it.
        qkv: [T, (heads + 2 kv_heads) · head_dim].
        queries: [T, heads, head_dim].
        attn_output: [T, heads · head_dim].
        attn_rows: the same as a product takes it; shares memory with it unless it is rounded.
        gate_up: [T, 2 · inner]. Shares memory with ``logits``.
        inner: [T, inner], as a product takes it.
        final: [T, hidden], behind the last norm.
        picked: [N, hidden]; of the sampled tokens.
        picked_residual: float32 [N, hidden]; of the sampled tokens, where the last layer goes on
            with them alone (`narrowed`).
        picked_queries: [N, heads, head_dim]; likewise.
        picked_rows: the same as the head takes it.
        logits: float32 [N, vocab].
    """

    residual: Tensor
    update: Tensor
    hidden: Activations
    qkv: Tensor
    queries: Tensor
    attn_output: Tensor
    attn_rows: Activations
    gate_up: Tensor
    inner: Activations
    final: Tensor
    picked: Tensor
    picked_residual: Tensor
    picked_queries: Tensor
    picked_rows: Activations
    logits: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all of them; what shares memory counts once."""
        rounded = (self.hidden, self.attn_rows, self.inner, self.picked_rows)
        tensors = [self.residual, self.update, self.qkv, self.queries, self.attn_output]
        tensors += [self.gate_up, self.final, self.logits]
        tensors += [self.picked, self.picked_residual, self.picked_queries]
        for rows in rounded:
            tensors += [rows.values] if rows.scales is None else [rows.values, rows.scales]
        storages = [tensor.untyped_storage() for tensor in tensors]
        return sum({id(storage): storage.nbytes() for storage in storages}.values())

    def rows(self, tokens: int, picked: int) -> "Buffers":
        """The first rows of each."""
        return Buffers(
            residual=self.residual[:tokens],
            update=self.update[:tokens],
            hidden=self.hidden.rows(tokens),
            qkv=self.qkv[:tokens],
            queries=self.queries[:tokens],
            attn_output=self.attn_output[:tokens],
            attn_rows=self.attn_rows.rows(tokens),
            gate_up=self.gate_up[:tokens],
            inner=self.inner.rows(tokens),
            final=self.final[:tokens],
            picked=self.picked[:picked],
            picked_residual=self.picked_residual[:picked],
            picked_queries=self.picked_queries[:picked],
            picked_rows=self.picked_rows.rows(picked),
            logits=self.logits[:picked],
        )

    def narrowed(self, picked: int) -> "Buffers":
        """Of a step that has the sampled tokens alone; the final norm gives `picked`."""
        rows = self.rows(picked, picked)
        return replace(
            rows, residual=rows.picked_residual, queries=rows.picked_queries, final=rows.picked
        )


@dataclass(frozen=True, slots=True)
class RowDtypes:
    """The dtypes in which products take their rows; 8 bits where the weight has 8."""

    layers: torch.dtype
    head: torch.dtype


def buffer_bytes(config: ModelConfig, max_tokens: int, max_rows: int, dtype: torch.dtype) -> int:
    """What `make_buffers` takes where products take rows of the model's dtype; others take less."""
    kinds = RowDtypes(dtype, dtype)
    return make_buffers(config, max_tokens, max_rows, dtype, kinds, torch.device("meta")).nbytes


def make_buffers(
    config: ModelConfig,
    max_tokens: int,
    max_rows: int,
    dtype: torch.dtype,
    row_dtypes: RowDtypes,
    device: torch.device,
) -> Buffers:
    """Memory for a step of ``max_tokens`` tokens, of which ``max_rows`` are sampled.

    Args:
        config: the model.
        max_tokens, max_rows: T and N.
        dtype: the model's.
        row_dtypes: see there.
        device: where the memory is.
    """
    hidden, inner = config.hidden_size, config.intermediate_size
    width = config.num_heads * config.head_dim
    kv_width = config.num_kv_heads * config.head_dim

    def room(rows: int, columns: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.empty(rows, columns, dtype=kind, device=device)

    def rows(count: int, columns: int, kind: torch.dtype) -> Activations:
        return activations(count, columns, kind, device)

    def shared(plain: Tensor, kind: torch.dtype) -> Activations:
        return Activations(plain) if kind == dtype else rows(plain.shape[0], plain.shape[1], kind)

    attn_output, picked = room(max_tokens, width), room(max_rows, hidden)
    # No step needs both at once: logits are read before the next step's first gate is computed.
    wide = torch.empty(
        max(2 * max_tokens * inner * dtype.itemsize, 4 * max_rows * config.vocab_size),
        dtype=torch.uint8,
        device=device,
    )
    gate_up = wide[: 2 * max_tokens * inner * dtype.itemsize].view(dtype)
    logits = wide[: 4 * max_rows * config.vocab_size].view(torch.float32)
    return Buffers(
        residual=room(max_tokens, hidden, torch.float32),
        update=room(max_tokens, hidden),
        hidden=rows(max_tokens, hidden, row_dtypes.layers),
        qkv=room(max_tokens, width + 2 * kv_width),
        queries=room(max_tokens, width).view(max_tokens, config.num_heads, config.head_dim),
        attn_output=attn_output,
        attn_rows=shared(attn_output, row_dtypes.layers),
        gate_up=gate_up.view(max_tokens, 2 * inner),
        inner=rows(max_tokens, inner, row_dtypes.layers),
        final=room(max_tokens, hidden),
        picked=picked,
        picked_residual=room(max_rows, hidden, torch.float32),
        picked_queries=room(max_rows, width).view(max_rows, config.num_heads, config.head_dim),
        picked_rows=shared(picked, row_dtypes.head),
        logits=logits.view(max_rows, config.vocab_size),
    )
