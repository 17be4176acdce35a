"""The prompts of a line as texts to encode, and what becomes of their token ids."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engine.errors import TokenizerError
from worker.endpoints.endpoint import ChatPrompt, ParsedBody, Prompt, TextPrompt, TokenPrompt
from worker.errors import BodyError
from worker.models.tokenizers import FillTokens, TextModel

Ids = Sequence[int]
SUFFIX = -1  # its place among the texts of a line; prompts count from 0


@dataclass(frozen=True, slots=True)
class PromptText:
    """A text to encode; ``special`` is whether the tokenizer adds its own special tokens."""

    text: str
    special: bool


def render_prompts(body: ParsedBody, model: TextModel) -> dict[int, PromptText]:
    """The texts to encode by their places; a prompt that is tokens already has none.

    Raises:
        BodyError: the chat template refuses the messages, or the model takes no suffix.
    """
    rendered = {
        place: _render(prompt, model, special=body.suffix is None)
        for place, prompt in enumerate(body.prompts)
        if not isinstance(prompt, TokenPrompt)
    }
    if body.suffix is not None:
        rendered[SUFFIX] = PromptText(_fill_tokens(model).mark + body.suffix, special=False)
    return rendered


def _fill_tokens(model: TextModel) -> FillTokens:
    found = model.tokenizer.fill_tokens
    if found is None:
        raise BodyError(
            f"The model '{model.name}' has no tokens for filling in the middle, so it takes no "
            "'suffix'.",
            param="suffix",
            code="unsupported_parameter",
        )
    return found


def fill_prompts(
    prompts: Sequence[Ids | BodyError], suffix: Ids | BodyError, body: ParsedBody, model: TextModel
) -> tuple[list[Ids | BodyError], ParsedBody]:
    """The prompts with the suffix, and the body whose outputs end where the middle does.

    Raises:
        BodyError: the suffix has no token ids.
    """
    if isinstance(suffix, BodyError):
        raise BodyError(str(suffix), param="suffix", code=suffix.code) from suffix
    tokens = _fill_tokens(model)
    arranged: list[Ids | BodyError] = [
        ids if isinstance(ids, BodyError) else tokens.arrange(ids, suffix) for ids in prompts
    ]
    if body.params.ignore_eos:
        return arranged, body
    stops = dict.fromkeys((*body.params.stop_token_ids, *tokens.ends))
    return arranged, replace(body, params=replace(body.params, stop_token_ids=tuple(stops)))


def _render(prompt: Prompt, model: TextModel, *, special: bool) -> PromptText:
    if isinstance(prompt, TextPrompt):
        return PromptText(prompt.text, special)
    assert isinstance(prompt, ChatPrompt)
    try:
        text = model.tokenizer.render_chat(prompt.messages, **prompt.template_args)
    except TokenizerError as error:
        raise BodyError(str(error), param="messages", code="invalid_value") from error
    # The template writes the special tokens itself.
    return PromptText(text, special=False)


def text_of(prompt: Prompt, model: TextModel) -> str:
    """The text that a response begins with; of token ids, with special tokens as they are."""
    if isinstance(prompt, TextPrompt):
        return prompt.text
    assert isinstance(prompt, TokenPrompt)
    return model.tokenizer.text_of(prompt.ids)
