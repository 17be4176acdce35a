"""One output in the making: its tokens, its blocks, and how far it is computed."""

from engine.cache.block_pool import hash_blocks, root_hash
from engine.requests import FinishReason, Request
from engine.scheduler.prompt_scores import PromptScores
from engine.scheduler.slots import SlotArrays

NO_SLOT = -1


class Sequence:
    """A request's prompt with one of its ``n`` outputs.

    What every step changes is kept by slot while it has one: see `SlotArrays`.

    Attributes:
        token_ids: the prompt and the output so far.
        max_total: most tokens it may come to, prompt and output.
        watched: whether somebody wants to see every token of the output as it comes.
        num_cached: of the prompt, found in the prefix cache on the first admission.
        blocks: the cache blocks it holds, in order.
        block_hashes: of its full blocks, as far as they were needed.
        slot: its place on the device, or `NO_SLOT` while it waits.
        arrays: where its counts are while it has a slot.
        scores: of the prompt, where its log-probabilities are wanted.
    """

    __slots__ = (
        "arrays",
        "block_hashes",
        "blocks",
        "finish_reason",
        "index",
        "max_total",
        "num_cached",
        "num_prompt",
        "request",
        "scores",
        "slot",
        "token_ids",
        "watched",
    )

    def __init__(self, request: Request, index: int, max_total: int) -> None:
        self.request = request
        self.index = index
        self.token_ids = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.max_total = max_total
        self.watched = False
        self.num_cached: int | None = None
        self.blocks: list[int] = []
        self.block_hashes: list[bytes] = []
        self.slot = NO_SLOT
        self.arrays: SlotArrays | None = None
        self.finish_reason: FinishReason | None = None
        self.scores: PromptScores | None = None

    @property
    def num_tokens(self) -> int:
        """Known tokens of the prompt and the output."""
        return len(self.token_ids)

    @property
    def num_output(self) -> int:
        """Known tokens of the output."""
        return len(self.token_ids) - self.num_prompt

    @property
    def num_computed(self) -> int:
        """See `SlotArrays.computed`; none without a slot."""
        return 0 if self.arrays is None else int(self.arrays.computed[self.slot])

    @property
    def output_ids(self) -> list[int]:
        """The output's token ids."""
        return self.token_ids[self.num_prompt :]

    def extend_hashes(self, block_size: int, upto: int) -> None:
        """Hash the full blocks among the first ``upto`` tokens that have no hash yet."""
        first, end = len(self.block_hashes) * block_size, upto // block_size * block_size
        if first < end:
            parent = self.block_hashes[-1] if first else root_hash(self.request.salt)
            self.block_hashes += hash_blocks(parent, self.token_ids[first:end], block_size)
