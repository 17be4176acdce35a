"""How a request is sampled. Field names and meanings follow the OpenAI API and vLLM."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any

import numpy as np

from engine.errors import InvalidRequest
from engine.token_ids import shown, token_ids

MAX_LOGPROBS = 20
MAX_CHOICES = 128
_INTEGERS = (
    "max_tokens",
    "min_tokens",
    "top_k",
    "seed",
    "n",
    "logprobs",
    "best_of",
    "prompt_logprobs",
)
_NUMBERS = (
    "temperature",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
_FLAGS = ("include_stop_str_in_output", "ignore_eos", "skip_special_tokens")


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Parameters of one request. Immutable, and validated when made.

    >>> SamplingParams(temperature=0, max_tokens=200, stop="\\n\\n")
    >>> SamplingParams(n=4, top_p=0.9, seed=7, logit_bias={504: -100})

    ``None`` is the default of all but ``max_tokens``. NumPy's numbers and arrays are taken as
    Python's.

    Attributes:
        max_tokens: most tokens to generate; ``None`` means up to the model's context. With 0 the
            prompt is computed alone, for its log-probabilities.
        min_tokens: fewest tokens before an end-of-sequence or stop token may be chosen.
        temperature: 0 (or less than 1e-5) is greedy.
        top_k: keep the k most probable tokens; 0 or -1 keeps all.
        top_p: keep the smallest set whose probability reaches p (nucleus, Holtzman et al. 2020).
        min_p: drop tokens less probable than ``min_p`` times the most probable one.
        repetition_penalty: divides (multiplies) the logits of tokens seen in prompt or answer
            (CTRL, Keskar et al. 2019); 1 is off.
        presence_penalty: subtracted once from the logit of every token seen in the answer.
        frequency_penalty: subtracted once per occurrence in the answer.
        logit_bias: token id → value added to its logit, each from -100 to 100.
        seed: makes the draw depend on the seed and the position only.
        stop: strings that end the answer; the text stops before them unless
            ``include_stop_str_in_output``.
        stop_token_ids: token ids that end the answer.
        ignore_eos: generate on past the end-of-sequence token.
        n: answers per prompt.
        best_of: answers that are generated, of which the ``n`` with the highest mean
            log-probability a token are given, best first; ``None`` means ``n``.
        logprobs: report the chosen token's log-probability and this many alternatives
            (0 means the chosen one only); ``None`` reports nothing.
        prompt_logprobs: report the log-probability of every token of the prompt but the first,
            given those before it, and this many alternatives. Such a prompt is computed whole: none
            of it is taken from the prefix cache.
        skip_special_tokens: leave special tokens out of the text.

    Raises:
        InvalidRequest: a value is out of range or of a wrong type; ``param`` names it.
    """

    max_tokens: int | None = 16
    min_tokens: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    include_stop_str_in_output: bool = False
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    n: int = 1
    logprobs: int | None = None
    skip_special_tokens: bool = True
    best_of: int | None = None
    prompt_logprobs: int | None = None

    def __post_init__(self) -> None:
        for name, read in _READERS.items():
            value = getattr(self, name)
            if value is None and name != "max_tokens":
                value = _DEFAULTS[name]
            self._set(name, None if value is None else read(name, value))
        self._set("logit_bias", _logit_bias(self.logit_bias))
        self._set("stop", _texts(self.stop))
        ids = self.stop_token_ids
        self._set("stop_token_ids", () if ids is None else token_ids(ids, "stop_token_ids"))
        if self.top_k == -1:
            self._set("top_k", 0)
        self._check_ranges()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_ranges(self) -> None:
        limits: tuple[tuple[str, float | None, float, float], ...] = (
            ("max_tokens", self.max_tokens, 0, 2**31),
            ("min_tokens", self.min_tokens, 0, 2**31),
            ("temperature", self.temperature, 0, 2),
            ("top_k", self.top_k, 0, 2**31 - 1),
            ("min_p", self.min_p, 0, 1),
            ("presence_penalty", self.presence_penalty, -2, 2),
            ("frequency_penalty", self.frequency_penalty, -2, 2),
            ("seed", self.seed, -(2**63), 2**64 - 1),
            ("n", self.n, 1, MAX_CHOICES),
            ("best_of", self.best_of, 1, MAX_CHOICES),
            ("logprobs", self.logprobs, 0, MAX_LOGPROBS),
            ("prompt_logprobs", self.prompt_logprobs, 0, MAX_LOGPROBS),
        )
        for name, value, low, high in limits:
            if value is not None and not low <= value <= high:
                raise InvalidRequest(
                    f"{name} must be between {low:g} and {high:g}, not {value}.", param=name
                )
        for name, value in (
            ("top_p", self.top_p),
            ("repetition_penalty", self.repetition_penalty),
        ):
            high = 1 if name == "top_p" else 10
            if not 0 < value <= high:
                raise InvalidRequest(
                    f"{name} must be above 0 and at most {high}, not {value}.", param=name
                )
        if self.max_tokens is not None and self.min_tokens > self.max_tokens:
            raise InvalidRequest(
                f"min_tokens ({self.min_tokens}) is above max_tokens ({self.max_tokens}).",
                param="min_tokens",
            )
        if self.best_of is not None and self.best_of < self.n:
            raise InvalidRequest(
                f"best_of ({self.best_of}) must be at least n ({self.n}).", param="best_of"
            )
        if any(not text for text in self.stop):
            raise InvalidRequest("A stop string is empty.", param="stop")
        if len(self.stop) > 16:
            raise InvalidRequest("There are more than 16 stop strings.", param="stop")
        for token, bias in self.logit_bias.items():
            if not -100 <= bias <= 100:
                raise InvalidRequest(
                    f"logit_bias for token {token} must be between -100 and 100, not {bias}.",
                    param="logit_bias",
                )

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is always chosen."""
        return self.temperature < 1e-5

    @property
    def num_generated(self) -> int:
        """Answers that are generated for a prompt: ``best_of``, or ``n``."""
        return self.best_of or self.n

    @property
    def sampled_logprobs(self) -> int | None:
        """``logprobs``, or 0 where only the choice among more answers than ``n`` needs them."""
        return 0 if self.logprobs is None and self.num_generated > self.n else self.logprobs

    @property
    def deterministic(self) -> bool:
        """Whether two runs of the same request are meant to give the same answer."""
        return self.greedy or self.seed is not None or self.max_tokens == 0


_DEFAULTS: Mapping[str, Any] = {each.name: each.default for each in fields(SamplingParams)}


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InvalidRequest(f"{name} must be a whole number, not {shown(value)}.", param=name)
    return int(value)


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InvalidRequest(f"{name} must be a number, not {shown(value)}.", param=name)
    return int(value) if isinstance(value, Integral) else float(value)


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise InvalidRequest(f"{name} must be true or false, not {shown(value)}.", param=name)
    return bool(value)


def _texts(value: Any) -> tuple[str, ...]:
    alone = isinstance(value, str | bytes) or not isinstance(value, Iterable)
    texts = () if value is None else (value,) if alone else tuple(value)
    for text in texts:
        if not isinstance(text, str):
            raise InvalidRequest(f"Stop strings must be text, not {shown(text)}.", param="stop")
    return texts


def _logit_bias(value: Any) -> dict[int, float]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(
            f"logit_bias must map token ids to numbers, not be {shown(value)}.", param="logit_bias"
        )
    ids = token_ids(value.keys(), "logit_bias")
    numbers = (_number("logit_bias", each) for each in value.values())
    return dict(zip(ids, numbers, strict=True))


_READERS: Mapping[str, Callable[[str, Any], Any]] = MappingProxyType(
    dict.fromkeys(_INTEGERS, _integer)
    | dict.fromkeys(_NUMBERS, _number)
    | dict.fromkeys(_FLAGS, _flag)
)
