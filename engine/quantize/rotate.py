"""Rotations that make activations easy to round and change nothing else.

A few channels of the residual stream are far louder than the rest and would set the scale of
every row. In another orthogonal basis no channel is loud, and RMSNorm does not see the difference
once its weight has moved into the projections after it. So the stream is rotated as a whole
(QuaRot, Ashkboos et al. 2024): what writes to it (embedding, attention's output, the feed-
forward's) is rotated on the way in, what reads it (fused projections, head) on the way out, all
of it in the weights, once, at load.

The inner activations of the feed-forward are a product of two and have no such freedom.
Neighbours are mixed by small Hadamard matrices just before they are rounded; the weight after
them is mixed likewise, and the two cancel.
"""

import math

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.mixing import mix, mix_count
from engine.kernels.native.rotation import rotate_rows_, rotates
from engine.kernels.reference import functions as reference
from engine.models.decoder import Decoder, FeedForward, Layer

_SEED = 0x7D1


class Rotation:
    """An orthogonal matrix R of a decoder's width, as a product of two smaller ones.

    Along the power of two in the width runs a Hadamard matrix, across the odd rest a random
    orthogonal one; signs are flipped at random first. To apply it costs a few dozen operations a
    number where R as a whole would cost the width.
    """

    def __init__(self, width: int) -> None:
        generator = torch.Generator().manual_seed(_SEED)
        self._signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1.0
        self._power = width & -width
        odd = width // self._power
        noise = torch.randn(odd, odd, generator=generator, dtype=torch.float64)
        self._matrix = torch.linalg.qr(noise)[0].float().contiguous()

    def rows(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(x · weight) Rᵀ: float32 [N, width], each row rotated; may be ``x`` itself, changed."""
        by = self._signs if weight is None else self._signs * weight.float()
        x = x.contiguous()
        if rotates(x, self._matrix.shape[0], self._power):
            rotate_rows_(x, by, self._matrix, self._power)
            return x
        return reference.rotate_rows(x, by, self._matrix, _hadamard(self._power))


class RotatedWeights:
    """Folds a rotation into a decoder while it is loaded; see `engine.models.loading`."""

    def __init__(self, config: ModelConfig) -> None:
        self._rotation = Rotation(config.hidden_size)
        self._mixed = mix_count(config.intermediate_size)

    def projection(self, decoder: Decoder, path: str, weight: Tensor) -> Tensor:
        """A projection's weight, float32 [outputs, inputs], in the new basis."""
        *owner, name = path.rsplit(".", 1)
        parent = decoder.get_submodule(owner[0]) if owner else decoder
        turn = self._rotation.rows
        match name:
            case "head":
                return turn(weight, decoder.norm)
            case "qkv":
                return turn(weight, _layer_of(decoder, path).attention_norm)
            case "gate_up":
                return turn(weight, _layer_of(decoder, path).feed_forward_norm)
            case "output":
                return turn(weight.T.contiguous()).T.contiguous()
            case "down":
                assert isinstance(parent, FeedForward)
                parent.mixed = self._mixed
                mixed = mix(weight, self._mixed, unit=False) / self._mixed
                return turn(mixed.T.contiguous()).T.contiguous()
        raise AssertionError(f"an unknown projection: {path}")

    def rest(self, decoder: Decoder) -> None:
        """Everything else, once all projections are folded."""
        turn = self._rotation.rows
        decoder.embedding.copy_(turn(decoder.embedding.float()))
        decoder.norm.fill_(1)
        for layer in decoder.layers:
            assert isinstance(layer, Layer)
            layer.attention_norm.fill_(1)
            layer.feed_forward_norm.fill_(1)
            for projection in (layer.attention.output, layer.feed_forward.down):
                if projection.bias is not None:
                    projection.bias.copy_(turn(projection.bias.float()[None])[0])


def _layer_of(decoder: Decoder, path: str) -> Layer:
    layer = decoder.get_submodule(".".join(path.split(".")[:2]))
    assert isinstance(layer, Layer)
    return layer


def _hadamard(size: int) -> Tensor:
    """The orthogonal Hadamard matrix of a power of two (Sylvester 1867)."""
    matrix = torch.ones(1, 1)
    while matrix.shape[0] < size:
        top = torch.cat((matrix, matrix), 1)
        matrix = torch.cat((top, torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(size)
