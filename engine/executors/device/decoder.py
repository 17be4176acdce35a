"""A decoder as fused passes over memory that stays, cut where attention comes.

`engine.models.decoder` is its reference.
"""

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from engine.executors.device.buffers import Buffers, RowDtypes, make_buffers
from engine.kernels.fused.kernels import FusedKernels, HeadNorms
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import Activations, LayerCache, StepTensors
from engine.kernels.fused.weights import DeviceWeight, Float8Weight
from engine.kernels.int8 import Int8Weight
from engine.models.decoder import Decoder, Layer, Linear


@dataclass(frozen=True, slots=True)
class Projection:
    """A packed weight and its bias."""

    weight: DeviceWeight
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class DeviceLayer:
    """One layer's weights."""

    attention_norm: Tensor
    qkv: Projection
    head_norms: HeadNorms | None
    window: int | None
    output: Projection
    feed_forward_norm: Tensor
    gate_up: Projection
    hadamard_count: int
    down: Projection


class DeviceDecoder:
    """Embedding, layers and head of one model.

    A step is `begin`, then for every layer `attend` and `proceed`, then `head`. Ahead of the last
    layer's `attend`, `narrow` may leave the sampled tokens alone: their keys and values, and all
    others', are in the cache by then. None of them allocates memory. The order of the launches
    depends on the arguments' shapes alone.

    Args:
        decoder: finished and not packed. Its projections are moved out of it, one by one.
        kernels: compute it.
        max_tokens: most tokens of a step.
        max_rows: most tokens of a step whose scores are wanted.

    Attributes:
        config: the model.
        buffers: of the largest step.
    """

    def __init__(
        self, decoder: Decoder, kernels: FusedKernels, max_tokens: int, max_rows: int
    ) -> None:
        self.config = config = decoder.config
        self._kernels = kernels
        self._eps = config.rms_norm_eps
        self._scale = config.head_dim**-0.5
        self._embedding = decoder.embedding.detach()
        self._norm = decoder.norm.detach()
        self._rotary = decoder.rotary
        self._head = self._take(decoder.head)
        self._layers = [self._layer(cast(Layer, layer)) for layer in decoder.layers]
        self.buffers = make_buffers(
            config,
            max_tokens,
            max_rows,
            self._norm.dtype,
            RowDtypes(self._rows_of(self._layers[0].qkv), self._rows_of(self._head)),
            self._embedding.device,
        )

    def _layer(self, layer: Layer) -> DeviceLayer:
        attention, feed_forward = layer.attention, layer.feed_forward
        norms = None
        if attention.query_norm is not None and attention.key_norm is not None:
            query, key = attention.query_norm.detach(), attention.key_norm.detach()
            norms = HeadNorms(query, key, attention.eps)
        return DeviceLayer(
            attention_norm=layer.attention_norm.detach(),
            qkv=self._take(attention.qkv),
            head_norms=norms,
            window=attention.window,
            output=self._take(attention.output),
            feed_forward_norm=layer.feed_forward_norm.detach(),
            gate_up=self._take(feed_forward.gate_up),
            hadamard_count=feed_forward.hadamard_count,
            down=self._take(feed_forward.down),
        )

    def _take(self, linear: Linear) -> Projection:
        bias = None if linear.bias is None else linear.bias.detach()
        weight = linear.take()
        if isinstance(weight, Tensor):
            weight = weight.detach()
        return Projection(self._kernels.pack(weight), bias)

    def _rows_of(self, projection: Projection) -> torch.dtype:
        """The dtype in which a projection takes its rows."""
        match projection.weight:
            case Int8Weight():
                return torch.int8
            case Float8Weight():
                return torch.float8_e4m3fn
            case _:
                return self._norm.dtype

    @property
    def num_layers(self) -> int:
        """Layers, and as many calls of `attend`."""
        return len(self._layers)

    # -- the passes of a step ----------------------------------------------------------------------

    def begin(
        self, buffers: Buffers, step: StepTensors, last_tokens: Tensor, cache: LayerCache
    ) -> None:
        """From tokens to the first layer's queries, its keys and values in the cache.

        Args:
            buffers: of the step's tokens.
            step: of these tokens; only what is told by token is read.
            last_tokens: int32 [max_num_seqs]; the token that each slot sampled last.
            cache: the first layer's.
        """
        self._kernels.embed(step.token_ids, last_tokens, self._embedding, buffers.residual)
        self._project(self._layers[0], None, buffers, step, cache)

    def narrow(self, buffers: Buffers, narrowed: Buffers, rows: Tensor) -> None:
        """Go on with some of the step's tokens alone, ahead of the last layer's attention.

        Args:
            buffers: of all of the step's tokens.
            narrowed: written; of those tokens, from `Buffers.narrowed`.
            rows: int32 [N]; which tokens.
        """
        torch.index_select(buffers.residual, 0, rows, out=narrowed.residual)
        torch.index_select(buffers.queries, 0, rows, out=narrowed.queries)

    def attend(
        self,
        index: int,
        buffers: Buffers,
        step: StepTensors,
        tasks: AttentionTasks,
        cache: LayerCache,
    ) -> None:
        """One layer's attention."""
        window = self._layers[index].window
        out = buffers.attn_output
        self._kernels.attention(buffers.queries, cache, step, tasks, self._scale, window, out)

    def proceed(
        self, index: int, buffers: Buffers, step: StepTensors, next_cache: LayerCache | None
    ) -> None:
        """From a layer's attention to the next one's queries; after the last, to the final norm.

        Args:
            index: of the layer.
            buffers, step: as in `begin`.
            next_cache: the next layer's; ``None`` after the last.
        """
        kernels, layer = self._kernels, self._layers[index]
        if buffers.attn_rows.scales is not None:
            kernels.round_rows(buffers.attn_output, buffers.attn_rows)
        self._multiply(buffers.attn_rows, layer.output, buffers.update)
        self._norm_of(buffers.update, layer.feed_forward_norm, buffers, buffers.hidden)
        self._multiply(buffers.hidden, layer.gate_up, buffers.gate_up)
        kernels.gate(buffers.gate_up, buffers.inner, layer.hadamard_count)
        self._multiply(buffers.inner, layer.down, buffers.update)
        if next_cache is not None:
            self._project(self._layers[index + 1], buffers.update, buffers, step, next_cache)
        else:
            self._norm_of(buffers.update, self._norm, buffers, Activations(buffers.final))

    def head(self, buffers: Buffers, rows: Tensor | None) -> None:
        """The logits of some of the step's tokens, after the final norm.

        Args:
            buffers: their `picked` rows and `logits` are written.
            rows: int32 [N]; which tokens. ``None`` where the step was narrowed to them.
        """
        if rows is not None:
            torch.index_select(buffers.final, 0, rows, out=buffers.picked)
        if buffers.picked_rows.scales is not None:
            self._kernels.round_rows(buffers.picked, buffers.picked_rows)
        self._multiply(buffers.picked_rows, self._head, buffers.logits)

    def _project(
        self,
        layer: DeviceLayer,
        update: Tensor | None,
        buffers: Buffers,
        step: StepTensors,
        cache: LayerCache,
    ) -> None:
        self._norm_of(update, layer.attention_norm, buffers, buffers.hidden)
        self._multiply(buffers.hidden, layer.qkv, buffers.qkv)
        self._kernels.rotate_and_store(
            buffers.qkv, layer.head_norms, self._rotary, step, cache, buffers.queries
        )

    def _norm_of(
        self, update: Tensor | None, weight: Tensor, buffers: Buffers, out: Activations
    ) -> None:
        self._kernels.add_norm(update, buffers.residual, weight, self._eps, out)

    def _multiply(self, x: Activations, projection: Projection, out: Tensor) -> None:
        self._kernels.product(x, projection.weight, projection.bias, out)
