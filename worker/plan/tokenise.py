"""Lines with a good envelope → token ids and sampling parameters, or that line's 400."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from engine.errors import InvalidRequest, TokenizerError
from engine.params import SamplingParams
from worker.bodies import PARSERS, ChatPrompt, ParsedBody, TextPrompt, TokenPrompt
from worker.errors import BodyError, ModelUnavailable
from worker.lines import InputLine
from worker.plan.models import TextModel, TextModels, TextTokenizer
from worker.plan.rows import PlannedLine, pack_params, pack_tokens
from worker.problems import Problem


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    special: bool  # whether the tokenizer adds its own special tokens


class LineTokeniser:
    """Plans lines of one endpoint, many at a time because the tokenizer works in parallel.

    With ``skip_unavailable`` the lines of a model that cannot be loaded become problems.
    """

    def __init__(
        self,
        endpoint: str,
        models: TextModels,
        default_max_tokens: int,
        *,
        skip_unavailable: bool = False,
    ) -> None:
        self._parse = PARSERS[endpoint]
        self._subject = "messages" if "chat" in endpoint else "prompt"
        self._models = models
        self._default_max_tokens = default_max_tokens
        self._skip_unavailable = skip_unavailable

    def plan(self, lines: Iterable[InputLine]) -> list[PlannedLine | Problem]:
        """One result a line, in the order given.

        Raises:
            ModelUnavailable: a model's tokenizer cannot be loaded, and such lines are not skipped.
        """
        results: list[PlannedLine | Problem | None] = []
        parsed: dict[int, tuple[InputLine, ParsedBody]] = {}
        texts: defaultdict[tuple[str, bool], dict[int, str]] = defaultdict(dict)
        for index, line in enumerate(lines):
            results.append(None)
            try:
                model = self._models.get(line.model)
                body = self._parse(line.body)
                if isinstance(body.prompt, TokenPrompt):
                    results[index] = self._finish(line, model, body.prompt.ids, body.params)
                    continue
                rendered = _render(body.prompt, model)
            except BodyError as error:
                results[index] = _problem(line, error)
            except ModelUnavailable as error:
                if not self._skip_unavailable:
                    raise
                results[index] = Problem(
                    line.number, error.code, str(error), "model", line.custom_id
                )
            else:
                parsed[index] = line, body
                texts[line.model, rendered.special][index] = rendered.text
        for index, found in self._encode(texts):
            line, body = parsed[index]
            try:
                if isinstance(found, BodyError):
                    raise found
                model = self._models.get(line.model)
                results[index] = self._finish(line, model, found, body.params)
            except BodyError as error:
                results[index] = _problem(line, error)
        return [result for result in results if result is not None]

    def _encode(
        self, texts: Mapping[tuple[str, bool], Mapping[int, str]]
    ) -> Iterable[tuple[int, list[int] | BodyError]]:
        for (name, special), by_index in texts.items():
            tokenizer = self._models.get(name).tokenizer
            encoded = self._encode_each(tokenizer, list(by_index.values()), special)
            yield from zip(by_index, encoded, strict=True)

    def _encode_each(
        self, tokenizer: TextTokenizer, texts: Sequence[str], special: bool
    ) -> Sequence[list[int] | BodyError]:
        """Each text's ids, or why it has none; one bad text costs the others nothing but time."""
        try:
            return tokenizer.encode_batch(texts, add_special_tokens=special)
        except TokenizerError as error:
            if len(texts) == 1:
                return [BodyError(str(error), param=self._subject, code="invalid_value")]
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
            params=pack_params(params),
            budget=len(ids) + params.max_tokens * params.n,
            deterministic=params.deterministic,
        )

    def _fit(self, prompt: int, params: SamplingParams, model: TextModel) -> SamplingParams:
        """Settle ``max_tokens``, and refuse what goes beyond the model's context."""
        context = model.context_length
        subject = self._subject
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


def _render(prompt: ChatPrompt | TextPrompt | TokenPrompt, model: TextModel) -> _Text:
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
