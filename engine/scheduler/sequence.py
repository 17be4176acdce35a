"""One answer in the making: its tokens, its blocks, and how far it is computed."""

from engine.cache.block_pool import hash_block, root_hash
from engine.requests import FinishReason, Request

NO_SLOT = -1


class Sequence:
    """A request's prompt with one of its ``n`` answers.

    ``token_ids`` is the prompt and what was generated so far; the keys and values of its first
    ``num_computed`` tokens are (or, in the current step, are about to be) in ``blocks``.
    """

    __slots__ = (
        "blocks",
        "finish_reason",
        "index",
        "max_total",
        "names",
        "num_cached",
        "num_computed",
        "num_prompt",
        "request",
        "slot",
        "token_ids",
    )

    def __init__(self, request: Request, index: int, max_total: int) -> None:
        self.request = request
        self.index = index
        self.token_ids = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.num_computed = 0
        self.num_cached: int | None = None
        self.max_total = max_total
        self.blocks: list[int] = []
        self.names: list[bytes] = []
        self.slot = NO_SLOT
        self.finish_reason: FinishReason | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of the prompt and the answer so far."""
        return len(self.token_ids)

    @property
    def num_output(self) -> int:
        """Tokens of the answer so far."""
        return len(self.token_ids) - self.num_prompt

    @property
    def output_ids(self) -> list[int]:
        """The answer's token ids."""
        return self.token_ids[self.num_prompt :]

    def extend_names(self, block_size: int, upto: int) -> None:
        """Name the full blocks among the first ``upto`` tokens that have no name yet."""
        while (len(self.names) + 1) * block_size <= upto:
            start = len(self.names) * block_size
            parent = self.names[-1] if self.names else root_hash(self.request.salt)
            self.names.append(hash_block(parent, self.token_ids[start : start + block_size]))
