"""Turns sampled tokens into outputs: when one ends, its text, its log-probabilities.

Whether an output ends is decided token by token, in the step's thread. The rest is done when
`FinishedRequest.completion` is called, which may be in another thread.
"""

from dataclasses import dataclass

from engine.errors import EngineError
from engine.requests import (
    Completion,
    FinishReason,
    Output,
    PositionLogprobs,
    Request,
    TokenLogprob,
)
from engine.scheduler.sequence import Sequence
from engine.scheduler.step import SampledToken
from engine.tokenizer import IncrementalDetokenizer, Tokenizer


class OutputBuilder:
    """Makes one `Output`, from the tokens of its `Sequence`.

    Text is decoded token by token only where stop strings must be looked for; otherwise once, at
    the end.
    """

    def __init__(
        self, sequence: Sequence, tokenizer: Tokenizer, end_token_ids: frozenset[int]
    ) -> None:
        params = sequence.request.params
        self._sequence = sequence
        self._tokenizer = tokenizer
        self._end_ids = frozenset(params.stop_token_ids)
        if not params.ignore_eos:
            self._end_ids |= end_token_ids
        self._sampled: list[SampledToken] | None = None if params.sampled_logprobs is None else []
        self._detokenizer = self._make_detokenizer() if params.stop else None

    @property
    def wants_every_token(self) -> bool:
        """Whether each token has to be pushed.

        Otherwise one that does not end the output may be appended to the sequence's instead: it is
        none of the model's end tokens, and the sequence does not come to its ``max_total``.
        """
        params = self._sequence.request.params
        return bool(params.stop or params.stop_token_ids) or self._sampled is not None

    def push(self, sampled: SampledToken) -> FinishReason | None:
        """Take the next token; say why the output ends with it, if it does."""
        sequence, params = self._sequence, self._sequence.request.params
        if params.max_tokens == 0:
            return "length"
        sequence.token_ids.append(sampled.token_id)
        if self._sampled is not None:
            self._sampled.append(sampled)
        enough = sequence.num_output >= params.min_tokens
        if sampled.token_id in self._end_ids and enough:
            return "stop"
        if self._detokenizer is not None:
            # As in vLLM, a stop string that begins within the first `min_tokens` is no stop.
            past = sequence.num_output > params.min_tokens
            self._detokenizer.push(sampled.token_id, search=past)
            if self._detokenizer.stopped is not None:
                return "stop"
        return "length" if sequence.num_tokens >= sequence.max_total else None

    @property
    def num_tokens(self) -> int:
        """Tokens so far."""
        return self._sequence.num_output

    @property
    def mean_logprob(self) -> float:
        """Of its tokens, where their log-probabilities were asked for; 0 without any."""
        if not self._sampled:
            return 0.0
        return sum(each.logprob or 0.0 for each in self._sampled) / len(self._sampled)

    def build(self, index: int, reason: FinishReason) -> Output:
        """The finished output. To be called once, when no more tokens come.

        Args:
            index: its place among the outputs that are given.
            reason: why it ended.
        """
        ids = self._sequence.output_ids
        reported = None
        if self._sampled is not None and self._sequence.request.params.logprobs is not None:
            reported = tuple(map(self._position, self._sampled))
        return Output(index, tuple(ids), self._text(ids), reason, reported)

    def prompt_logprobs(self) -> tuple[PositionLogprobs | None, ...] | None:
        """Of the prompt's tokens; ``None`` where they were not asked for, or not all computed."""
        sequence = self._sequence
        if sequence.scores is None or not sequence.scores.complete:
            return None
        found: list[PositionLogprobs | None] = [None]
        if (scores := sequence.scores.scores) is not None:
            columns = (each.tolist() for each in scores)
            tokens = sequence.request.prompt[1:]
            for token_id, logprob, ids, values in zip(tokens, *columns, strict=True):
                top = tuple(zip(ids, values, strict=True))
                found.append(self._position(SampledToken(token_id, logprob, top)))
        return tuple(found)

    def prompt_start(self) -> TokenLogprob:
        """The prompt's first token."""
        return self._token(self._sequence.request.prompt[0], 0.0)

    def _text(self, ids: list[int]) -> str:
        params = self._sequence.request.params
        if self._detokenizer is not None:
            self._detokenizer.finish()  # what was held back may complete a stop string
            if self._detokenizer.stopped is not None:
                return self._detokenizer.text
        if ids and ids[-1] in self._end_ids and not params.include_stop_str_in_output:
            ids = ids[:-1]
        return self._tokenizer.decode(
            ids, skip_special_tokens=params.skip_special_tokens, after=self._context()
        )

    def _context(self) -> tuple[int, ...]:
        request = self._sequence.request
        return self._tokenizer.context_of(request.prompt) if request.continues else ()

    def _make_detokenizer(self) -> IncrementalDetokenizer:
        params = self._sequence.request.params
        return IncrementalDetokenizer(
            self._tokenizer,
            skip_special_tokens=params.skip_special_tokens,
            stop=params.stop,
            include_stop=params.include_stop_str_in_output,
            after=self._context(),
        )

    def _position(self, sampled: SampledToken) -> PositionLogprobs:
        logprob = sampled.logprob if sampled.logprob is not None else 0.0
        return PositionLogprobs(
            chosen=self._token(sampled.token_id, logprob),
            top=tuple(self._token(token_id, value) for token_id, value in sampled.top),
        )

    def _token(self, token_id: int, logprob: float) -> TokenLogprob:
        raw = self._tokenizer.token_bytes(token_id)
        return TokenLogprob(token_id, raw.decode("utf-8", "replace"), logprob, raw)


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """A request that came to its end, or could not run.

    Attributes:
        request: what was asked for.
        outputs: all that were generated, in order, with the reason why each ended; none where it
            could not run.
        cached_tokens: of the prompt, taken from the prefix cache.
        refusal: why it could not run.
    """

    request: Request
    outputs: tuple[tuple[OutputBuilder, FinishReason], ...] = ()
    cached_tokens: int = 0
    refusal: EngineError | None = None

    def completion(self) -> Completion:
        """Decode the outputs. To be called once, in any thread."""
        params = self.request.params
        chosen = self.outputs
        if params.num_generated > params.n:
            chosen = tuple(sorted(chosen, key=_rank)[: params.n])
        prompt_logprobs = self.outputs[0][0].prompt_logprobs() if self.outputs else None
        generated = sum(builder.num_tokens for builder, _ in self.outputs)
        return Completion(
            request_id=self.request.id,
            prompt_token_ids=self.request.prompt,
            outputs=tuple(
                builder.build(index, reason) for index, (builder, reason) in enumerate(chosen)
            ),
            cached_tokens=self.cached_tokens,
            error=None if self.refusal is None else str(self.refusal),
            error_code=None if self.refusal is None else self.refusal.code,
            prompt_logprobs=prompt_logprobs,
            prompt_start=None if prompt_logprobs is None else self.outputs[0][0].prompt_start(),
            discarded_tokens=generated - sum(builder.num_tokens for builder, _ in chosen),
        )


def _rank(output: tuple[OutputBuilder, FinishReason]) -> tuple[bool, float]:
    """Best first; ahead of all, those that were cancelled, as the request was then."""
    builder, reason = output
    return reason != "cancelled", -builder.mean_logprob


class RequestOutputs:
    """Collects the ``n`` outputs of a request."""

    def __init__(self, request: Request, sequences: list[Sequence]) -> None:
        self.request = request
        self.sequences = sequences
        self._ended: dict[int, tuple[OutputBuilder, FinishReason]] = {}

    def add(
        self, index: int, builder: OutputBuilder, reason: FinishReason
    ) -> FinishedRequest | None:
        """Take an output that ended; returns the whole request once it was the last."""
        self._ended[index] = builder, reason
        if len(self._ended) < len(self.sequences):
            return None
        outputs = tuple(self._ended[index] for index in sorted(self._ended))
        return FinishedRequest(self.request, outputs, self.sequences[0].num_cached or 0)
