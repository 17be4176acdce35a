"""Rotations that make activations easy to round and change nothing else.

A few channels of the residual stream are outliers: they would set the scale of every row. In
another orthogonal basis there are none. RMSNorm gives the same in any basis, once its weight has
moved into the projections after it. So the whole stream is rotated (QuaRot, Ashkboos et al. 2024):
the weights that write to it (embedding, attention's output, the feed-forward's) and those that read
it (fused projections, head) are rotated once, at load, and nothing is computed at run time.

The inner activations of the feed-forward are a product of two factors, which no rotation of weights
reaches. They go through small Hadamard transforms just before they are rounded. The weight after
them is transformed likewise, so that the two cancel.
"""

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.backend import Backend
from engine.kernels.hadamard import hadamard, hadamard_count, rotate_rows
from engine.models.decoder import Decoder, FeedForward, Layer

_SEED = 0x7D1


class Rotation:
    """An orthogonal matrix R of a decoder's width, as a product of two smaller ones.

    The greatest power of two in the width has a Hadamard matrix, the odd rest a random orthogonal
    one (`engine.kernels.hadamard.rotate_rows`); before both, signs are flipped at random. Applying
    it takes a few dozen operations a number; R as a single matrix would take ``width``.
    """

    def __init__(self, width: int, backend: Backend) -> None:
        self._backend = backend
        generator = torch.Generator().manual_seed(_SEED)
        self._signs = torch.randint(0, 2, (width,), generator=generator) * 2.0 - 1.0
        odd = width // (width & -width)
        noise = torch.randn(odd, odd, generator=generator, dtype=torch.float64)
        self._matrix = torch.linalg.qr(noise)[0].float().contiguous()

    def rows(self, x: Tensor, weight: Tensor | None = None) -> Tensor:
        """(x · weight) Rᵀ: float32 [N, width], each row rotated; may be ``x`` itself, changed."""
        by, matrix = self._signs.to(x.device), self._matrix.to(x.device)
        if weight is not None:
            by = by * weight.float()
        return rotate_rows(self._backend, x.contiguous(), by, matrix)


class RotatedWeights:
    """Folds a rotation into a decoder while it is loaded; see `engine.models.loading`.

    Args:
        config: the model.
        backend: rotates the weights.
    """

    def __init__(self, config: ModelConfig, backend: Backend) -> None:
        self._backend = backend
        self._rotation = Rotation(config.hidden_size, backend)
        self._count = hadamard_count(config.intermediate_size)

    def projection(self, decoder: Decoder, path: str, weight: Tensor) -> Tensor:
        """A projection's weight, float32 [outputs, inputs], in the new basis."""
        *owner, name = path.rsplit(".", 1)
        parent = decoder.get_submodule(owner[0]) if owner else decoder
        rotate = self._rotation.rows
        match name:
            case "head":
                return rotate(weight, decoder.norm)
            case "qkv":
                return rotate(weight, _layer_of(decoder, path).attention_norm)
            case "gate_up":
                return rotate(weight, _layer_of(decoder, path).feed_forward_norm)
            case "output":
                return rotate(weight.T.contiguous()).T.contiguous()
            case "down":
                assert isinstance(parent, FeedForward)
                parent.hadamard_count = self._count
                if self._count > 1:
                    weight = hadamard(self._backend, weight, self._count, unit=False) / self._count
                return rotate(weight.T.contiguous()).T.contiguous()
        raise AssertionError(f"an unknown projection: {path}")

    def rest(self, decoder: Decoder) -> None:
        """Everything else, once all projections are folded."""
        rotate = self._rotation.rows
        decoder.embedding.copy_(rotate(decoder.embedding.float()))
        decoder.norm.fill_(1)
        for layer in decoder.layers:
            assert isinstance(layer, Layer)
            layer.attention_norm.fill_(1)
            layer.feed_forward_norm.fill_(1)
            for projection in (layer.attention.output, layer.feed_forward.down):
                if projection.bias is not None:
                    projection.bias.copy_(rotate(projection.bias.float()[None])[0])


def _layer_of(decoder: Decoder, path: str) -> Layer:
    layer = decoder.get_submodule(".".join(path.split(".")[:2]))
    assert isinstance(layer, Layer)
    return layer
