"""The decoder that all Llama-like families share; the configuration says where they differ."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from engine.cache.kv_cache import KVCache
from engine.config import ModelConfig
from engine.kernels.activation import silu_and_mul
from engine.kernels.attention import paged_attention, store_kv
from engine.kernels.batch import AttentionBatch
from engine.kernels.grouped import GroupedWeight, grouped_linear
from engine.kernels.int8 import Int8Weight, int8_linear, quantize_rows
from engine.kernels.linear import linear, pack_weight
from engine.kernels.mixing import mix
from engine.kernels.norm import add_rms_norm_, rms_norm
from engine.kernels.rope import RotaryRows, RotaryTable, apply_rope, rotary_frequencies

QuantizedWeight = Int8Weight | GroupedWeight


def _parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape), requires_grad=False)


class Linear(nn.Module):
    """x weightᵀ + bias, with the weight [outputs, inputs] in one of several forms."""

    def __init__(self, inputs: int, outputs: int, *, bias: bool) -> None:
        super().__init__()
        self.inputs = inputs
        self.weight: nn.Parameter | None = _parameter(outputs, inputs)
        self.bias = _parameter(outputs) if bias else None
        self._other: Tensor | QuantizedWeight | None = None

    @property
    def replaced(self) -> bool:
        """Whether it runs on another form of the weight than the parameter."""
        return self._other is not None

    def replace(self, weight: Tensor | QuantizedWeight) -> None:
        """Run on this form of the weight instead of the parameter, which is given up."""
        self._other, self.weight = weight, None

    def take(self) -> Tensor | QuantizedWeight:
        """Give up the weight, in whatever form it is, for somebody else to keep."""
        weight = self.weight if self._other is None else self._other
        assert weight is not None, "the weight was taken before"
        self._other = self.weight = None
        return weight

    def pack(self) -> None:
        """Lay a plain weight out for the device. It can no longer be read or moved after that."""
        if self.weight is not None:
            self.replace(pack_weight(self.weight))

    def forward(self, x: Tensor) -> Tensor:
        """[T, inputs] → [T, outputs]."""
        weight = self.weight if self._other is None else self._other
        match weight:
            case Int8Weight():
                return self._shifted(int8_linear(quantize_rows(x), weight)).to(x.dtype)
            case GroupedWeight():
                return self._shifted(grouped_linear(x, weight)).to(x.dtype)
            case Tensor():
                return linear(x, weight, self.bias)
        raise AssertionError("the weight was taken")

    def _shifted(self, product: Tensor) -> Tensor:
        return product if self.bias is None else product + self.bias.float()


class Attention(nn.Module):
    """Grouped-query attention with one fused product for queries, keys and values."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim, self.eps = config.head_dim, config.rms_norm_eps
        self.window = config.window(layer)
        width = config.num_heads * config.head_dim
        kv_width = config.num_kv_heads * config.head_dim
        self.qkv = Linear(config.hidden_size, width + 2 * kv_width, bias=config.qkv_bias)
        self.output = Linear(width, config.hidden_size, bias=config.output_bias)
        self.query_norm = _parameter(config.head_dim) if config.qk_norm else None
        self.key_norm = _parameter(config.head_dim) if config.qk_norm else None

    def forward(
        self, x: Tensor, rotary: RotaryRows, batch: AttentionBatch, cache: tuple[Tensor, Tensor]
    ) -> Tensor:
        """[T, hidden] → [T, hidden]; writes the tokens' keys and values to the layer's cache."""
        heads = self.qkv(x).unflatten(-1, (-1, self.head_dim))
        # Queries and keys stand side by side, so one pass rotates both.
        rotated, values = heads[:, : -self.num_kv_heads], heads[:, -self.num_kv_heads :]
        if self.query_norm is not None and self.key_norm is not None:
            queries = rms_norm(rotated[:, : self.num_heads], self.query_norm, self.eps)
            keys = rms_norm(rotated[:, self.num_heads :], self.key_norm, self.eps)
            rotated = torch.cat((queries, keys), dim=1)
        rotated = apply_rope(rotated, rotary)
        queries, keys = rotated[:, : self.num_heads], rotated[:, self.num_heads :]
        store_kv(keys, values, *cache, batch.slot_mapping)
        mixed = paged_attention(queries, *cache, batch, self.head_dim**-0.5, self.window)
        projected: Tensor = self.output(mixed.flatten(1))
        return projected


class FeedForward(nn.Module):
    """SwiGLU with one fused product for the gate and the other factor."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.gate_up = Linear(hidden, 2 * inner, bias=config.mlp_bias)
        self.down = Linear(inner, hidden, bias=config.mlp_bias)
        self.mixed = 1  # inner activations that are mixed with each other before they are rounded

    def forward(self, x: Tensor) -> Tensor:
        """[T, hidden] → [T, hidden]."""
        inner = silu_and_mul(self.gate_up(x))
        if self.mixed > 1:
            inner = mix(inner, self.mixed, unit=False)
        projected: Tensor = self.down(inner)
        return projected


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm and added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.eps = config.rms_norm_eps
        self.attention_norm = _parameter(config.hidden_size)
        self.attention = Attention(config, index)
        self.feed_forward_norm = _parameter(config.hidden_size)
        self.feed_forward = FeedForward(config)

    def forward(
        self,
        update: Tensor | None,
        residual: Tensor,
        rotary: RotaryRows,
        batch: AttentionBatch,
        cache: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Take in the previous layer's update, and return this one's: [T, hidden].

        An update is added to the residual stream, in place, by the norm that follows it.
        """
        x = add_rms_norm_(update, residual, self.attention_norm, self.eps)
        x = self.attention(x, rotary, batch, cache)
        x = add_rms_norm_(x, residual, self.feed_forward_norm, self.eps)
        own: Tensor = self.feed_forward(x)
        return own


class Decoder(nn.Module):
    """Token ids in, hidden states out; keys and values live in the paged cache.

    Its parameters are unfilled when made: `engine.models.loading` builds it on the meta device,
    fills it from a checkpoint, and calls `finish`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = _parameter(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config, i) for i in range(config.num_layers))
        self.norm = _parameter(config.hidden_size)
        self.head = Linear(config.hidden_size, config.vocab_size, bias=False)
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
            # bfloat16 scores of 16 and more are 0.125 apart, which decides near ties by chance.
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
        """Keep every projection's weight in few bits, the head's included, unless it is already."""
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
        # The stream is float32 whatever the weights are. In bfloat16 it would be rounded twice a
        # layer: SmolLM2's mean divergence from float32's distribution is then 0.0025 nats a token,
        # not 0.0011, and what that saves in time cannot be measured.
        residual = self.embedding[token_ids].float()
        update = None
        for index, layer in enumerate(self.layers):
            update = layer(update, residual, rotary, attention, cache.layer(index))
        return add_rms_norm_(update, residual, self.norm, self.config.rms_norm_eps)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of every token of the vocabulary: [N, hidden] → float32 [N, vocab]."""
        scores: Tensor = self.head(hidden.to(self._head_dtype or hidden.dtype))
        return scores.float()
