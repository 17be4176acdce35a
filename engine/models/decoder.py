"""The decoder that all Llama-like families share; the configuration says where they differ."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.cache.kv_cache import KVCache
from engine.config import ModelConfig
from engine.kernels.activation import silu_and_mul
from engine.kernels.attention import paged_attention, store_kv
from engine.kernels.backend import Backend
from engine.kernels.batch import AttentionBatch
from engine.kernels.fused.weights import Float8Weight
from engine.kernels.grouped import GroupedWeight, grouped_linear
from engine.kernels.hadamard import hadamard
from engine.kernels.int8 import Int8Weight, int8_linear, quantize_rows
from engine.kernels.linear import linear, pack_weight
from engine.kernels.norm import add_rms_norm_, rms_norm
from engine.kernels.rope import RotaryRows, RotaryTable, apply_rope, rotary_frequencies

QuantizedWeight = Int8Weight | Float8Weight | GroupedWeight


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape), requires_grad=False)


class Linear(nn.Module):
    """x weightᵀ + bias, with the weight [outputs, inputs] in one of several forms."""

    def __init__(self, inputs: int, outputs: int, backend: Backend, *, bias: bool) -> None:
        super().__init__()
        self._backend = backend
        self.inputs, self.outputs = inputs, outputs
        self.weight: nn.Parameter | None = _parameter(outputs, inputs)
        self.bias = _parameter(outputs) if bias else None
        self._other: Tensor | QuantizedWeight | None = None

    @property
    def replaced(self) -> bool:
        """Whether it runs on another form of the weight, in place of the parameter."""
        return self._other is not None

    def replace(self, weight: Tensor | QuantizedWeight) -> None:
        """Run on this form of the weight from now on, and drop the parameter."""
        self._other, self.weight = weight, None

    def take(self) -> Tensor | QuantizedWeight:
        """Return the weight, in whatever form it is, and forget it."""
        weight = self.weight if self._other is None else self._other
        assert weight is not None, "the weight was taken before"
        self._other = self.weight = None
        return weight

    def pack(self) -> None:
        """Lay a plain weight out for the device. After that it can no longer be read or moved."""
        if self.weight is not None:
            self.replace(pack_weight(self._backend, self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """[T, inputs] → [T, outputs]."""
        weight = self.weight if self._other is None else self._other
        backend = self._backend
        match weight:
            case Int8Weight():
                product = int8_linear(backend, quantize_rows(backend, x), weight)
                return self._biased(product).to(x.dtype)
            case GroupedWeight():
                return self._biased(grouped_linear(backend, x, weight)).to(x.dtype)
            case Tensor():
                return linear(backend, x, weight, self.bias)
        raise AssertionError("the weight was taken, or is for fused passes alone")

    def _biased(self, product: Tensor) -> Tensor:
        return product if self.bias is None else product + self.bias.float()


class Attention(nn.Module):
    """Grouped-query attention with one fused product for queries, keys and values."""

    def __init__(self, config: ModelConfig, layer: int, backend: Backend) -> None:
        super().__init__()
        self._backend = backend
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim, self.eps = config.head_dim, config.rms_norm_eps
        self.window = config.window(layer)
        width = config.num_heads * config.head_dim
        kv_width = config.num_kv_heads * config.head_dim
        self.qkv = Linear(config.hidden_size, width + 2 * kv_width, backend, bias=config.qkv_bias)
        self.output = Linear(width, config.hidden_size, backend, bias=config.output_bias)
        self.query_norm = _parameter(config.head_dim) if config.qk_norm else None
        self.key_norm = _parameter(config.head_dim) if config.qk_norm else None

    def forward(
        self, x: Tensor, rotary: RotaryRows, batch: AttentionBatch, cache: tuple[Tensor, Tensor]
    ) -> Tensor:
        """[T, hidden] → [T, hidden]; writes the tokens' keys and values to the layer's cache."""
        backend = self._backend
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        # Queries and keys are neighbours, so one pass rotates both.
        rotated, values = heads[:, : -self.num_kv_heads], heads[:, -self.num_kv_heads :]
        if self.query_norm is not None and self.key_norm is not None:
            queries = rms_norm(backend, rotated[:, : self.num_heads], self.query_norm, self.eps)
            keys = rms_norm(backend, rotated[:, self.num_heads :], self.key_norm, self.eps)
            rotated = torch.cat((queries, keys), dim=1)
        rotated = apply_rope(backend, rotated, rotary)
        queries, keys = rotated[:, : self.num_heads], rotated[:, self.num_heads :]
        store_kv(backend, keys, values, *cache, batch.slot_mapping)
        scale = self.head_dim**-0.5
        attn_output = paged_attention(backend, queries, *cache, batch, scale, self.window)
        projected: Tensor = self.output(attn_output.flatten(1))
        return projected


class FeedForward(nn.Module):
    """SwiGLU with one fused product for the gate and the other factor."""

    def __init__(self, config: ModelConfig, backend: Backend) -> None:
        super().__init__()
        self._backend = backend
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_up = Linear(hidden, 2 * inner, backend, bias=config.mlp_bias)
        self.down = Linear(inner, hidden, backend, bias=config.mlp_bias)
        self.hadamard_count = 1  # of the transform of inner activations; 1 is none

    def forward(self, x: Tensor) -> Tensor:
        """[T, hidden] → [T, hidden]."""
        inner = silu_and_mul(self._backend, self.gate_up(x))
        if self.hadamard_count > 1:
            inner = hadamard(self._backend, inner, self.hadamard_count, unit=False)
        projected: Tensor = self.down(inner)
        return projected


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int, backend: Backend) -> None:
        super().__init__()
        self._backend = backend
        self.eps = config.rms_norm_eps
        self.attention_norm = _parameter(config.hidden_size)
        self.attention = Attention(config, index, backend)
        self.feed_forward_norm = _parameter(config.hidden_size)
        self.feed_forward = FeedForward(config, backend)

    def forward(
        self,
        update: Tensor | None,
        residual: Tensor,
        rotary: RotaryRows,
        batch: AttentionBatch,
        cache: tuple[Tensor, Tensor],
    ) -> Tensor:
        """From the previous layer's update to this one's: [T, hidden].

        The norm that follows an update adds it to the residual stream, in place.
        """
        backend = self._backend
        x = add_rms_norm_(backend, update, residual, self.attention_norm, self.eps)
        x = self.attention(x, rotary, batch, cache)
        x = add_rms_norm_(backend, x, residual, self.feed_forward_norm, self.eps)
        own: Tensor = self.feed_forward(x)
        return own


class Decoder(nn.Module):
    """Token ids in, hidden states out; keys and values live in the paged cache.

    Its parameters are unfilled when made: `engine.models.loading` builds it on the meta device,
    fills it from a checkpoint, and calls `finish`.

    Args:
        config: the model.
        backend: computes its layers.
    """

    def __init__(self, config: ModelConfig, backend: Backend) -> None:
        super().__init__()
        self._backend = backend
        self.config = config
        self.embedding = _parameter(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i, backend) for i in range(config.num_layers))
        self.norm = _parameter(config.hidden_size)
        self.head = Linear(config.hidden_size, config.vocab_size, backend, bias=False)
        if config.tie_embeddings:
            self.head.weight = None
        self._rotary: RotaryTable | None = None
        self._head_dtype: torch.dtype | None = None  # the weights' own

    def finish(self, device: torch.device, frequency_factors: Tensor | None = None) -> None:
        """Get ready to run once the weights are filled in: rotations, tied head.

        `pack` or `quantize` comes after it.

        Args:
            device: where the weights are.
            frequency_factors: float32 [head_dim / 2] of the checkpoint, by which the rotary
                frequencies are divided.
        """
        frequencies = rotary_frequencies(self.config.rope, self.config.head_dim)
        if frequency_factors is not None:
            frequencies = frequencies / frequency_factors
        self._rotary = RotaryTable.build(frequencies, self.config.max_position, device)
        if self.config.tie_embeddings and not self.head.replaced:
            self.head.weight = self.embedding
        if device.type == "cpu" and self.head.weight is not None:
            # bfloat16 scores from 16 on are 0.125 apart, so that chance would decide near ties.
            wide = self.head.weight.detach().float()
            self.head.weight = nn.Parameter(wide, requires_grad=False)
            self._head_dtype = torch.float32

    @property
    def rotary(self) -> RotaryTable:
        """Cosines and sines of every position."""
        assert self._rotary is not None, "finish() has not been called"
        return self._rotary

    def pack(self) -> None:
        """Lay every weight out for the device."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.pack()

    def quantize(self, how: Callable[[Tensor], QuantizedWeight]) -> None:
        """Replace every projection's weight, the head's too, unless it was replaced before."""
        for module in self.modules():
            if isinstance(module, Linear) and module.weight is not None:
                module.replace(how(module.weight))

    def forward(
        self, token_ids: Tensor, positions: Tensor, attention: AttentionBatch, cache: KVCache
    ) -> Tensor:
        """Run one step's tokens.

        Args:
            token_ids: int64 [T], the flattened batch.
            positions: int64 [T], each token's place in its own sequence.
            attention: how the batch divides into sequences, and where their keys are.
            cache: written for every token, and read.

        Returns:
            [T, hidden], after the final norm, in the weights' dtype.
        """
        rotary = self.rotary.rows(positions)
        # The residual stream is always float32. bfloat16 would round it twice a layer: SmolLM2's
        # mean divergence from float32 would be 0.0025 nats a token, not 0.0011, and the time
        # saved is too little to measure.
        residual = self.embedding[token_ids].float()
        update = None
        for index, layer in enumerate(self.layers):
            update = layer(update, residual, rotary, attention, cache.layer(index))
        eps = self.config.rms_norm_eps
        return add_rms_norm_(self._backend, update, residual, self.norm, eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token of the vocabulary: [N, hidden] → float32 [N, vocab]."""
        scores: Tensor = self.head(hidden.to(self._head_dtype or hidden.dtype))
        return scores.float()
