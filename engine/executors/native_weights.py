"""The weights of a decoder in C, laid out: made of a `Decoder`, or of tensors that were kept."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, cast

import torch
from torch import Tensor

from engine.config import ModelConfig
from engine.kernels.fused.weights import Float8Weight
from engine.kernels.native.weights import ARRAYS, PackedWeight, pack
from engine.kernels.rope import RotaryTable
from engine.models.decoder import Decoder, Layer, Linear

_EMBEDDING, _FREQUENCIES = "embedding", "rotary.frequencies"


@dataclass(frozen=True, slots=True)
class NativeWeights:
    """All that the layers in C read of one model.

    Attributes:
        config: the model.
        embedding: [vocab, hidden], of the weights' dtype.
        norms: float32, by their names in `Decoder`.
        projections: by their names in `Decoder`, as ``layers.3.attention.qkv``.
        rotary: cosines and sines of every position.
        hadamard_count: of the transform of inner activations; 1 is none.
    """

    config: ModelConfig
    embedding: Tensor
    norms: Mapping[str, Tensor]
    projections: Mapping[str, PackedWeight]
    rotary: RotaryTable
    hadamard_count: int

    @classmethod
    def of(
        cls, config: ModelConfig, tensors: Mapping[str, Tensor], form: Mapping[str, Any]
    ) -> Self:
        """From what `tensors` and `form` gave of equal weights."""
        projections = {
            path: PackedWeight.of(
                sizes, {x: tensors[f"{path}.{x}"] for x in ARRAYS if f"{path}.{x}" in tensors}
            )
            for path, sizes in form["projections"].items()
        }
        embedding = tensors[_EMBEDDING]
        return cls(
            config,
            embedding,
            {name: tensor for name, tensor in tensors.items() if name.endswith("norm")},
            projections,
            RotaryTable.build(tensors[_FREQUENCIES], config.max_position, embedding.device),
            form["hadamard_count"],
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything that is a tensor, but what is made of others, by name. All are contiguous."""
        named = {_EMBEDDING: self.embedding, _FREQUENCIES: self.rotary.frequencies, **self.norms}
        for path, weight in self.projections.items():
            named |= {f"{path}.{name}": array for name, array in weight.arrays.items()}
        return named

    def form(self) -> dict[str, Any]:
        """Everything else, as JSON has it."""
        projections = {path: weight.sizes for path, weight in self.projections.items()}
        return {"hadamard_count": self.hadamard_count, "projections": projections}


def pack_decoder(decoder: Decoder, *, threads: int, at_once: int = 1) -> NativeWeights:
    """Lay out the weights of a decoder for the layers in C.

    Args:
        decoder: finished and not packed. Its projections are moved out of it, one by one, so that
            memory holds little more than one copy.
        threads: CPU threads.
        at_once: projections that are laid out at the same time, by a thread each.
    """
    linears = {path: each for path, each in decoder.named_modules() if isinstance(each, Linear)}
    # The largest first, which is the head: it would be what the others wait for.
    paths = sorted(linears, key=lambda path: -linears[path].inputs * linears[path].outputs)
    one = partial(_pack, dtype=decoder.embedding.dtype, threads=max(1, threads // at_once))
    with ThreadPoolExecutor(at_once) as pool:
        packed = list(pool.map(one, paths, [linears[path] for path in paths]))
    norms = {
        name: parameter.detach().float().contiguous()
        for name, parameter in decoder.named_parameters()
        if name.endswith("norm")
    }
    return NativeWeights(
        decoder.config,
        decoder.embedding.detach().contiguous(),
        norms,
        dict(zip(paths, packed, strict=True)),
        decoder.rotary,
        cast(Layer, decoder.layers[0]).feed_forward.hadamard_count,
    )


def _pack(path: str, linear: Linear, *, dtype: torch.dtype, threads: int) -> PackedWeight:
    weight = linear.take()
    if isinstance(weight, Tensor):
        # The reference's head is float32 on a CPU, which changes no value; here only its scores
        # have to be.
        weight = weight.to(dtype)
    assert not isinstance(weight, Float8Weight), "no CPU is offered these"
    gated = path.endswith("gate_up")
    return pack(weight, linear.bias, gated=gated, threads=threads)
