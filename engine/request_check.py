"""Whether a loaded model can run a request at all."""

from engine.errors import InvalidRequest, PromptTooLong
from engine.requests import Request


def check_request(request: Request, context: int, vocab_size: int) -> int:
    """The most tokens that prompt and output may come to.

    Args:
        request: its parameters are in range already.
        context: tokens that prompt and output may have.
        vocab_size: token ids are below it.

    Raises:
        InvalidRequest: it can never run; ``param`` names why.
    """
    prompt, params = request.prompt, request.params
    if not prompt:
        raise InvalidRequest("The prompt is empty.", param="prompt")
    scored_alone = params.max_tokens == 0
    if len(prompt) >= context + scored_alone:
        behind = "." if scored_alone else ", and at least one must be left for the answer."
        raise PromptTooLong(
            f"The prompt has {len(prompt)} tokens; the context holds {context}{behind}",
            param="prompt",
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise InvalidRequest(f"Token ids must be from 0 to {vocab_size - 1}.", param="prompt")
    for name, ids in (
        ("logit_bias", params.logit_bias),
        ("stop_token_ids", params.stop_token_ids),
    ):
        if any(not 0 <= token_id < vocab_size for token_id in ids):
            raise InvalidRequest(f"Token ids must be from 0 to {vocab_size - 1}.", param=name)
    if scored_alone:
        return len(prompt) + 1  # a token is sampled as for any prompt, and dropped
    room = context - len(prompt)
    return len(prompt) + min(params.max_tokens or room, room)
