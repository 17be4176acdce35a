"""One output in the making: its tokens, its blocks, and how far it is computed."""

from engine.cache.block_pool import hash_block, root_hash
from engine.requests import FinishReason, Request

NO_SLOT = -1


class Sequence:
    """A request's prompt with one of its ``n`` outputs.

    Attributes:
        token_ids: the prompt and the output so far.
        max_total: most tokens it may come to, prompt and output.
        num_computed: tokens from the start whose keys and values are in `blocks`, or will be once
            the steps in flight are done. It may count tokens that are not known yet.
        num_cached: of the prompt, found in the prefix cache on the first admission.
        num_pending: tokens that steps in flight sample for it.
        num_in_flight: steps in flight that it is part of.
        blocks: the cache blocks it holds, in order.
        block_hashes: of its full blocks, as far as they were needed.
        num_published: blocks from the start that the prefix cache was told of.
        slot: its place on the device, or `NO_SLOT` while it waits.
        left: whether the scheduler was told that it is finished.
    """

    __slots__ = (
        "block_hashes",
        "blocks",
        "finish_reason",
        "index",
        "left",
        "max_total",
        "num_cached",
        "num_computed",
        "num_in_flight",
        "num_pending",
        "num_prompt",
        "num_published",
        "request",
        "slot",
        "token_ids",
    )

    def __init__(self, request: Request, index: int, max_total: int) -> None:
        self.request = request
        self.index = index
        self.token_ids = list(request.prompt)
        self.num_prompt = len(request.prompt)
        self.max_total = max_total
        self.num_computed = 0
        self.num_cached: int | None = None
        self.num_pending = 0
        self.num_in_flight = 0
        self.blocks: list[int] = []
        self.block_hashes: list[bytes] = []
        self.num_published = 0
        self.slot = NO_SLOT
        self.left = False
        self.finish_reason: FinishReason | None = None

    @property
    def num_tokens(self) -> int:
        """Known tokens of the prompt and the output."""
        return len(self.token_ids)

    @property
    def num_expected(self) -> int:
        """Known tokens, and those that steps in flight sample."""
        return len(self.token_ids) + self.num_pending

    @property
    def num_output(self) -> int:
        """Known tokens of the output."""
        return len(self.token_ids) - self.num_prompt

    @property
    def output_ids(self) -> list[int]:
        """The output's token ids."""
        return self.token_ids[self.num_prompt :]

    def extend_hashes(self, block_size: int, upto: int) -> None:
        """Hash the full blocks among the first ``upto`` tokens that have no hash yet."""
        hashes = self.block_hashes
        while (len(hashes) + 1) * block_size <= upto:
            start = len(hashes) * block_size
            parent = hashes[-1] if hashes else root_hash(self.request.salt)
            hashes.append(hash_block(parent, self.token_ids[start : start + block_size]))
