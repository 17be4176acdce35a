"""Lines with a good envelope → token ids and sampling parameters, or the line's problem."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from engine.errors import InvalidRequest, TokenizerError
from engine.params import SamplingParams
from worker.endpoints.endpoint import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from worker.endpoints.registry import ENDPOINTS
from worker.errors import BodyError, ModelUnavailable
from worker.models.tokenizers import TextModel, TextModels, TextTokenizer
from worker.plan.envelope import InputLine
from worker.plan.rows import PlannedLine, pack_params, pack_tokens
from worker.problems import Problem


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    special: bool  # whether the tokenizer adds its own special tokens


@dataclass(frozen=True, slots=True)
class Prepared:
    """Lines whose bodies are parsed, and whose prompts are not all encoded yet.

    Attributes:
        results: one entry a line, in the order given; ``None`` where the prompt is to be encoded.
        parsed: index in ``results`` → the line and its sampling parameters.
        texts: (model, whether the tokenizer adds its special tokens) → index → the prompt's text.
    """

    results: list[PlannedLine | Problem | None] = field(default_factory=list)
    parsed: dict[int, tuple[InputLine, SamplingParams]] = field(default_factory=dict)
    texts: defaultdict[tuple[str, bool], dict[int, str]] = field(
        default_factory=lambda: defaultdict(dict)
    )


Encoded = dict[int, list[int] | BodyError]


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
                if isinstance(body.prompt, TokenPrompt):
                    found = self._finish(line, model, body.prompt.ids, body.params)
                    prepared.results[index] = found
                    continue
                rendered = _render(body.prompt, model)
            except BodyError as error:
                prepared.results[index] = _problem(line, error)
            except ModelUnavailable as error:
                prepared.results[index] = Problem(
                    line.number, error.code, str(error), "model", line.custom_id
                )
            else:
                prepared.parsed[index] = line, body.params
                prepared.texts[line.model, rendered.special][index] = rendered.text
        return prepared

    def encode(self, prepared: Prepared) -> Encoded:
        """Index → token ids, or why there are none.

        The tokenizer releases Python's global lock, so a thread can do this beside other work.
        """
        encoded: Encoded = {}
        for (name, special), by_index in prepared.texts.items():
            tokenizer = self._models.get(name).tokenizer
            found = self._encode_each(tokenizer, list(by_index.values()), special)
            encoded.update(zip(by_index, found, strict=True))
        return encoded

    def finish(self, prepared: Prepared, encoded: Encoded) -> list[PlannedLine | Problem]:
        """Check the token ids against the models' limits; one result a line."""
        for index, (line, params) in prepared.parsed.items():
            found = encoded[index]
            try:
                if isinstance(found, BodyError):
                    raise found
                model = self._models.get(line.model)
                prepared.results[index] = self._finish(line, model, found, params)
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
        self, line: InputLine, model: TextModel, ids: Sequence[int], params: SamplingParams
    ) -> PlannedLine:
        params = self._fit(len(ids), params, model)
        _check_vocabulary(ids, params, model)
        assert params.max_tokens is not None
        return PlannedLine(
            line=line.number,
            custom_id=line.custom_id,
            model=line.model,
            tokens=pack_tokens(ids),
            params=self._pack(params),
            budget=len(ids) + params.max_tokens * params.n,
            deterministic=params.deterministic,
        )

    def _pack(self, params: SamplingParams) -> str:
        """`pack_params`, cached: most lines have the parameters of the line before."""
        if params is not self._packed[0]:
            self._packed = params, pack_params(params)
        return self._packed[1]

    def _fit(self, prompt: int, params: SamplingParams, model: TextModel) -> SamplingParams:
        """The parameters with ``max_tokens`` set, so that the line fits the model's context.

        Raises:
            BodyError: it does not fit.
        """
        context = model.context_length
        subject = self._endpoint.prompt_param
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


def _render(prompt: Prompt, model: TextModel) -> _Text:
    if isinstance(prompt, TextPrompt):
        return _Text(prompt.text, special=True)
    assert isinstance(prompt, ChatPrompt)
    try:
        text = model.tokenizer.render_chat(prompt.messages, **prompt.template_args)
    except TokenizerError as error:
        raise BodyError(str(error), param="messages", code="invalid_value") from error
    # The template writes the special tokens itself.
    return _Text(text, special=False)


def _check_vocabulary(ids: Sequence[int], params: SamplingParams, model: TextModel) -> None:
    if not ids:
        raise BodyError("The prompt has no tokens.", param="prompt", code="invalid_value")
    for param, tokens in (
        ("prompt", ids),
        ("logit_bias", tuple(params.logit_bias)),
        ("stop_token_ids", params.stop_token_ids),
    ):
        if tokens and not (min(tokens) >= 0 and max(tokens) < model.vocab_size):
            raise BodyError(
                f"'{param}' holds a token id that is not in the model's vocabulary "
                f"(0 to {model.vocab_size - 1}).",
                param=param,
                code="invalid_value",
            )


def _problem(line: InputLine, error: BodyError) -> Problem:
    return Problem(line.number, error.code, str(error), error.param, line.custom_id)
