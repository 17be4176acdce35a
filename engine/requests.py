"""What goes into the engine and what comes out of it. Plain values: no torch, cheap to pickle."""

from dataclasses import dataclass, field
from typing import Literal

from engine.errors import InvalidRequest
from engine.params import SamplingParams
from engine.token_ids import shown, token_ids

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt to run.

    Attributes:
        id: the caller's name for it, unique among live requests.
        prompt: token ids, at least one.
        params: how to sample.
        salt: separates prefix caches; requests share cached blocks only under equal salts
            (one salt a tenant).
        continues: whether the outputs go on from the prompt's text, as completions do, and may
            begin with a space; else they stand alone, as answers in a chat do.

    The prompt may be given as a list, a NumPy array or a torch tensor; it is kept as a tuple.

    >>> Request("row-1", (504, 5345, 314), SamplingParams(temperature=0))

    Raises:
        InvalidRequest: a value is of a wrong type; ``param`` names it.
    """

    id: str
    prompt: tuple[int, ...]
    params: SamplingParams = field(default_factory=SamplingParams)
    salt: str = ""
    continues: bool = True

    def __post_init__(self) -> None:
        if type(self.prompt) is not tuple or not {*map(type, self.prompt)} <= {int}:
            object.__setattr__(self, "prompt", token_ids(self.prompt))
        if self.params is None:
            object.__setattr__(self, "params", SamplingParams())
        for name, type_ in (("id", str), ("params", SamplingParams), ("salt", str)):
            value = getattr(self, name)
            if not isinstance(value, type_):
                raise InvalidRequest(f"{name} is {type_.__name__}, not {shown(value)}.", param=name)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its natural-log probability under the distribution before penalties."""

    token_id: int
    token: str
    logprob: float
    bytes: bytes


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The chosen token at one position, and the most probable ones there, best first."""

    chosen: TokenLogprob
    top: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Output:
    """One answer of the ``n`` asked for. ``token_ids`` includes a final stop token if one came."""

    index: int
    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprobs: tuple[PositionLogprobs, ...] | None = None


@dataclass(frozen=True, slots=True)
class Completion:
    """The engine's answer to a request.

    Attributes:
        outputs: the ``n`` asked for; best first where more were generated (``best_of``).
        cached_tokens: prompt tokens whose keys and values were already in the cache when the
            request was first scheduled (of its first answer where ``n`` > 1).
        error: why the request could not be run; ``outputs`` is then empty.
        error_code: the code of that error (`engine.errors`).
        prompt_logprobs: of each token of the prompt, where they were asked for; ``None`` for the
            first one, which nothing comes before.
        prompt_start: that first token; 0 stands for its log-probability.
        discarded_tokens: generated for answers of ``best_of`` that are not among the outputs.
    """

    request_id: str
    prompt_token_ids: tuple[int, ...]
    outputs: tuple[Output, ...]
    cached_tokens: int = 0
    error: str | None = None
    error_code: str | None = None
    discarded_tokens: int = 0
    prompt_logprobs: tuple[PositionLogprobs | None, ...] | None = None
    prompt_start: TokenLogprob | None = None

    @property
    def completion_tokens(self) -> int:
        """Tokens generated, over all answers and those that were discarded."""
        return sum(len(output.token_ids) for output in self.outputs) + self.discarded_tokens

    @property
    def text(self) -> str:
        """The first answer's text ("" where there is none)."""
        return self.outputs[0].text if self.outputs else ""


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A snapshot of the engine's counters; all but the first four only ever grow.

    ``prompt_tokens`` and ``cached_tokens`` are of finished requests, each prompt counted once.
    """

    waiting: int = 0
    running: int = 0
    total_blocks: int = 0
    free_blocks: int = 0
    steps: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    preemptions: int = 0
    finished: int = 0
