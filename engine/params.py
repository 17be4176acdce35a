"""How a request is sampled. Field names and meanings follow the OpenAI API and vLLM."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.errors import InvalidRequest

MAX_LOGPROBS = 20
MAX_CHOICES = 128


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """Parameters of one request. Immutable, and validated when made.

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
        InvalidRequest: a value is out of range; ``param`` names it.
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
        if isinstance(self.stop, str):
            object.__setattr__(self, "stop", (self.stop,))
        object.__setattr__(self, "stop", tuple(self.stop))
        object.__setattr__(self, "stop_token_ids", tuple(self.stop_token_ids))
        if self.top_k == -1:
            object.__setattr__(self, "top_k", 0)
        self._check_types()
        self._check_ranges()

    def _check_types(self) -> None:
        whole = ("max_tokens", "min_tokens", "top_k", "seed", "n", "best_of")
        for name in (*whole, "logprobs", "prompt_logprobs"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
                raise InvalidRequest(f"{name} must be a whole number, not {value!r}.", param=name)
        for name in ("stop_token_ids", "logit_bias"):
            if not all(isinstance(token, int) for token in getattr(self, name)):
                raise InvalidRequest(f"{name}: token ids must be whole numbers.", param=name)
        if not all(isinstance(text, str) for text in self.stop):
            raise InvalidRequest("Stop strings must be text.", param="stop")

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
