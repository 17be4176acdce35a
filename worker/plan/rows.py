"""The planner's values: a line with its prompt's tokens, and a group of equal lines."""

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from engine.params import SamplingParams
from engine.prefix_order import pack_tokens

__all__ = ["Group", "PlannedLine", "pack_params", "pack_tokens", "unpack_params", "unpack_tokens"]

_params_decoder = msgspec.json.Decoder(SamplingParams)
_params_encoder = msgspec.json.Encoder()


def unpack_tokens(packed: bytes) -> npt.NDArray[np.int32]:
    """Packed tokens → int32[n]."""
    return np.frombuffer(packed, dtype=">u4").astype(np.int32)


def pack_params(params: SamplingParams) -> str:
    """Sampling parameters as JSON; equal parameters give equal text."""
    return _params_encoder.encode(params).decode()


def unpack_params(packed: str) -> SamplingParams:
    """The inverse of `pack_params`."""
    return _params_decoder.decode(packed)


@dataclass(frozen=True, slots=True)
class PlannedLine:
    """A line that will be run.

    Attributes:
        line: the input's line number, from 1.
        tokens: the prompt, packed by `engine.prefix_order.pack_tokens`.
        params: the sampling parameters, packed by `pack_params`.
        budget: tokens that it takes at most: the prompt and every output.
        deterministic: whether a second run is meant to give the same outputs.
    """

    line: int
    custom_id: str
    model: str
    tokens: bytes
    params: str
    budget: int
    deterministic: bool

    @property
    def prompt_tokens(self) -> int:
        """Tokens in the prompt."""
        return len(self.tokens) // 4

    def weight(self, *, with_params: bool) -> int:
        """What the line takes in memory, as tokens of four bytes.

        Equal parameters are kept once: ``with_params`` counts them, for the first line with them.
        """
        params = len(self.params) if with_params else 0
        return (len(self.tokens) + len(self.custom_id) + params) // 4


@dataclass(frozen=True, slots=True)
class Group:
    """Equal lines, computed once. The first is the leader; the others get its response."""

    lines: tuple[PlannedLine, ...]

    @property
    def leader(self) -> PlannedLine:
        """The line that is run."""
        return self.lines[0]
