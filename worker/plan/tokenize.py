"""Lines with a good envelope → token ids and sampling parameters, or the line's problem."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from engine.errors import InvalidRequest, TokenizerError
from engine.params import SamplingParams
from worker.endpoints.endpoint import ParsedBody, TokenPrompt
from worker.endpoints.registry import ENDPOINTS
from worker.errors import BodyError, ModelUnavailable
from worker.models.prompt_texts import SUFFIX, Ids, fill_prompts, render_prompts, text_of
from worker.models.tokenizers import TextModel, TextModels, TextTokenizer
from worker.plan.envelope import InputLine
from worker.plan.rows import PlannedLine, pack_params, pack_tokens, request_places
from worker.problems import Problem

MAX_ECHOED_TOKENS = 2**17  # of a line, with log-probabilities

_Place = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Prepared:
    """Lines whose bodies are parsed, and whose prompts are not all encoded yet.

    Attributes:
        results: one entry a line, in the order given; ``None`` where it is still to come.
        parsed: index in ``results`` → the line and its body.
        texts: (model, whether the tokenizer adds its special tokens) → index in ``results`` and
            place among the line's prompts → the prompt's text. The place of a suffix is `SUFFIX`.
    """

    results: list[PlannedLine | Problem | None] = field(default_factory=list)
    parsed: dict[int, tuple[InputLine, ParsedBody]] = field(default_factory=dict)
    texts: defaultdict[tuple[str, bool], dict[_Place, str]] = field(
        default_factory=lambda: defaultdict(dict)
    )


Encoded = dict[_Place, list[int] | BodyError]


class LineTokenizer:
    """Parses and tokenizes lines of one endpoint, many at once: the tokenizer works in parallel.

    Args:
        endpoint: its path.
        default_max_tokens: the limit of output tokens where a body sets none.
    """

    def __init__(self, endpoint: str, models: TextModels, default_max_tokens: int) -> None:
        self._endpoint = ENDPOINTS[endpoint]
        self._models = models
        self._default_max_tokens = default_max_tokens
        self._packed: tuple[SamplingParams | None, str] = (None, "")

    def tokenize(self, lines: Iterable[InputLine]) -> list[PlannedLine | Problem]:
        """`prepare`, `encode` and `finish` in one call; one result a line, in the order given.

        Raises:
            ModelNotReady: a model is waited for.
        """
        prepared = self.prepare(lines)
        return self.finish(prepared, self.encode(prepared))

    def prepare(self, lines: Iterable[InputLine]) -> Prepared:
        """Parse the bodies and render the chat templates.

        Raises:
            ModelNotReady: as `tokenize`.
        """
        prepared = Prepared()
        parse = self._endpoint.parse
        for index, line in enumerate(lines):
            prepared.results.append(None)
            try:
                model = self._models.get(line.model)
                body = parse(line.body)
                rendered = render_prompts(body, model)
            except BodyError as error:
                prepared.results[index] = _problem(line, error)
            except ModelUnavailable as error:
                prepared.results[index] = Problem(
                    line.number, error.code, str(error), "model", line.custom_id
                )
            else:
                prepared.parsed[index] = line, body
                for place, text in rendered.items():
                    prepared.texts[line.model, text.special][index, place] = text.text
        return prepared

    def encode(self, prepared: Prepared) -> Encoded:
        """Index and place → token ids, or why there are none.

        The tokenizer releases Python's global lock, so a thread can do this beside other work.
        """
        encoded: Encoded = {}
        for (name, special), by_place in prepared.texts.items():
            tokenizer = self._models.get(name).tokenizer
            found = self._encode_each(tokenizer, list(by_place.values()), special)
            encoded.update(zip(by_place, found, strict=True))
        return encoded

    def finish(self, prepared: Prepared, encoded: Encoded) -> list[PlannedLine | Problem]:
        """Check the token ids against the models' limits; one result a line."""
        for index, (line, body) in prepared.parsed.items():
            model = self._models.get(line.model)
            try:
                prompts: list[Ids | BodyError] = [
                    prompt.ids if isinstance(prompt, TokenPrompt) else encoded[index, place]
                    for place, prompt in enumerate(body.prompts)
                ]
                if body.suffix is not None:
                    prompts, body = fill_prompts(prompts, encoded[index, SUFFIX], body, model)
                prepared.results[index] = self._finish(line, model, prompts, body)
            except BodyError as error:
                prepared.results[index] = _problem(line, error)
        return [result for result in prepared.results if result is not None]

    def _encode_each(
        self, tokenizer: TextTokenizer, texts: Sequence[str], special: bool
    ) -> Sequence[list[int] | BodyError]:
        """Each text's token ids, or why it has none; one bad text costs the others only time."""
        try:
            return tokenizer.encode_batch(texts, add_special_tokens=special)
        except TokenizerError as error:
            if len(texts) == 1:
                return [
                    BodyError(str(error), param=self._endpoint.prompt_param, code="invalid_value")
                ]
        return [found for text in texts for found in self._encode_each(tokenizer, [text], special)]

    def _finish(
        self,
        line: InputLine,
        model: TextModel,
        prompts: Sequence[Ids | BodyError],
        body: ParsedBody,
    ) -> PlannedLine:
        params = body.params
        packed: list[bytes] = []
        lengths: list[int] = []
        for place, ids in enumerate(prompts):
            name = self._endpoint.prompt_param
            name = name if len(prompts) == 1 else f"{name}[{place}]"
            if isinstance(ids, BodyError):
                raise BodyError(str(ids), param=name, code=ids.code) from ids
            params = self._fit(len(ids), params, model, name)
            if not ids:
                raise BodyError(f"'{name}' has no tokens.", param=name, code="invalid_value")
            _check_vocabulary(name, ids, model)
            packed.append(pack_tokens(ids))
            lengths.append(len(ids))
        _check_vocabulary("logit_bias", tuple(params.logit_bias), model)
        _check_vocabulary("stop_token_ids", params.stop_token_ids, model)
        assert params.max_tokens is not None
        if body.echo and params.logprobs is not None:
            _check_echo(sum(lengths), params.n, model)
        texts = tuple(text_of(prompt, model) for prompt in body.prompts) if body.echo else ()
        places = set(request_places(packed, texts, distinct=params.deterministic))
        outputs = len(places) * params.num_generated * params.max_tokens
        return PlannedLine(
            line=line.number,
            custom_id=line.custom_id,
            model=line.model,
            tokens=b"".join(packed),
            params=self._pack(params),
            budget=sum(lengths[place] for place in places) + outputs,
            deterministic=params.deterministic,
            lengths=tuple(lengths) if len(lengths) > 1 else (),
            texts=texts,
            scored=params.prompt_logprobs is not None,
        )

    def _pack(self, params: SamplingParams) -> str:
        """`pack_params`, cached: most lines have the parameters of the line before."""
        if params is not self._packed[0]:
            self._packed = params, pack_params(params)
        return self._packed[1]

    def _fit(
        self, prompt: int, params: SamplingParams, model: TextModel, subject: str
    ) -> SamplingParams:
        """The parameters with ``max_tokens`` set, so that the prompt fits the model's context.

        Raises:
            BodyError: it does not fit; names the ``subject``.
        """
        context = model.context_length
        start = f"This model's maximum context length is {context} tokens. However, "
        wanted = params.max_tokens
        if wanted is not None and prompt + wanted > context:
            message = (
                f"{start}you requested {prompt + wanted} tokens ({prompt} in the {subject}, "
                f"{wanted} in the completion). Please reduce the length of the {subject} or "
                "completion."
            )
            raise BodyError(message, param=subject, code="context_length_exceeded")
        if wanted is not None:
            return params
        if prompt >= context:
            message = (
                f"{start}your {subject} resulted in {prompt} tokens. Please reduce the length of "
                f"the {subject}."
            )
            raise BodyError(message, param=subject, code="context_length_exceeded")
        limit = max(self._default_max_tokens, params.min_tokens)
        try:
            return replace(params, max_tokens=min(context - prompt, limit))
        except InvalidRequest as error:
            raise BodyError(str(error), param=error.param, code="invalid_value") from error


def _check_vocabulary(param: str, ids: Sequence[int], model: TextModel) -> None:
    if ids and not (min(ids) >= 0 and max(ids) < model.vocab_size):
        raise BodyError(
            f"'{param}' holds a token id that is not in the model's vocabulary "
            f"(0 to {model.vocab_size - 1}).",
            param=param,
            code="invalid_value",
        )


def _check_echo(tokens: int, times: int, model: TextModel) -> None:
    """Refuse log-probabilities of prompts that are repeated so often that memory would not do."""
    limit = max(MAX_ECHOED_TOKENS, model.context_length)
    if tokens * times > limit:
        raise BodyError(
            f"With 'echo' and 'logprobs' {tokens:,} tokens of prompts would come {times:,} times; "
            f"a line may have {limit:,}. Write several lines, or set 'n' lower.",
            param="echo",
            code="invalid_value",
        )


def _problem(line: InputLine, error: BodyError) -> Problem:
    return Problem(line.number, error.code, str(error), error.param, line.custom_id)
