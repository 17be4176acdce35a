"""The planner's values: a line with its prompts' tokens, and a group of equal lines."""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from engine.params import SamplingParams
from engine.prefix_order import pack_tokens

__all__ = [
    "Group",
    "PlannedLine",
    "pack_params",
    "pack_tokens",
    "request_places",
    "split",
    "unpack_params",
    "unpack_tokens",
]

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


Items = TypeVar("Items", bytes, tuple[int, ...])


def split(items: Items, lengths: Iterable[int]) -> list[Items]:
    """Cut into pieces of these lengths."""
    cuts: list[int] = list(accumulate(lengths, initial=0))
    return [items[start:end] for start, end in pairwise(cuts)]


def request_places(
    prompts: Sequence[Hashable], texts: Sequence[str] = (), *, distinct: bool
) -> tuple[int, ...]:
    """For each prompt of a line, the place of the one whose outputs it gets.

    Args:
        prompts: token ids, in any form that can be compared.
        texts: as in `PlannedLine`; prompts with other texts are not equal.
        distinct: whether equal ones are computed once, as a second run would give the same.
    """
    if not distinct or len(prompts) == 1:
        return tuple(range(len(prompts)))
    first: dict[Hashable, int] = {}
    keys = zip(prompts, texts, strict=True) if texts else prompts
    return tuple(first.setdefault(key, place) for place, key in enumerate(keys))


@dataclass(frozen=True, slots=True)
class PlannedLine:
    """A line that will be run.

    Attributes:
        line: the input's line number, from 1.
        tokens: the prompt, packed by `engine.prefix_order.pack_tokens`; of a line with several
            prompts, all of them, one behind the other.
        params: the sampling parameters, packed by `pack_params`.
        budget: tokens that it takes at most: every prompt that is computed and every output.
        deterministic: whether a second run is meant to give the same outputs.
        lengths: of a line with several prompts, the tokens of each; empty for one prompt.
        texts: each prompt's text, where the response is to begin with it.
        scored: whether log-probabilities of the prompts are wanted; they are computed whole then.
    """

    line: int
    custom_id: str
    model: str
    tokens: bytes
    params: str
    budget: int
    deterministic: bool
    lengths: tuple[int, ...] = ()
    texts: tuple[str, ...] = ()
    scored: bool = False

    @property
    def prompt_tokens(self) -> int:
        """Tokens in all prompts."""
        return len(self.tokens) // 4

    @property
    def computed_prompts(self) -> tuple[bytes, ...]:
        """The packed prompts that are computed: each one of the line, or each distinct one."""
        if not self.lengths:
            return (self.tokens,)
        every = split(self.tokens, [4 * length for length in self.lengths])
        places = request_places(every, self.texts, distinct=self.deterministic)
        return tuple(every[place] for place in sorted(set(places)))

    @property
    def computed_tokens(self) -> int:
        """Tokens in the prompts that are computed."""
        return sum(map(len, self.computed_prompts)) // 4

    @property
    def output_limit(self) -> int:
        """Tokens that all its outputs take at most."""
        return self.budget - self.computed_tokens

    def weight(self, *, with_params: bool) -> int:
        """What the line takes in memory, as tokens of four bytes.

        Equal parameters are kept once: ``with_params`` counts them, for the first line with them.
        """
        params = len(self.params) if with_params else 0
        beside = len(self.custom_id) + 4 * len(self.lengths) + sum(map(len, self.texts)) + params
        return (len(self.tokens) + beside) // 4


@dataclass(frozen=True, slots=True)
class Group:
    """Equal lines, computed once. The first is the leader; the others get its response."""

    lines: tuple[PlannedLine, ...]

    @property
    def leader(self) -> PlannedLine:
        """The line that is run."""
        return self.lines[0]
