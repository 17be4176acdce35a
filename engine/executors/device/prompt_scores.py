"""Log-probabilities of prompts, computed on the device behind the step that reads the prompts."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine.executors.device.buffers import Buffers
from engine.executors.device.decoder import DeviceDecoder
from engine.executors.device.sizes import padded_sequences
from engine.executors.scored_rows import SLICE_LOGITS, ScoredRows
from engine.kernels.fused.device import Device
from engine.sampling.scoring import score_tokens
from engine.scheduler.step import TokenScores


class DevicePromptScores:
    """The head, run once more for tokens whose scores no step needs, in slices.

    The slices' logits lie where those of sampled tokens do, so they come after the step's draw.

    Args:
        device: runs it.
        decoder: its buffers hold the step's final activations.
    """

    def __init__(self, device: Device, decoder: DeviceDecoder) -> None:
        self._device = device
        self._decoder = decoder
        fitting = max(1, SLICE_LOGITS // decoder.config.vocab_size)
        self._most = min(len(decoder.buffers.logits), 1 << (fitting.bit_length() - 1))

    def launch(self, scored: ScoredRows, tokens: int) -> "PendingScores":
        """Submit what is wanted behind a step.

        Args:
            scored: of the step.
            tokens: of the step, padding included.
        """
        device, count = self._device, len(scored.rows)
        size = padded_sequences(count, self._most)
        padded = -(-count // size) * size
        sent = device.pinned((2, padded), torch.int32)
        sent[0, :count] = torch.from_numpy(scored.rows)
        sent[1, :count] = torch.from_numpy(scored.targets)
        there = torch.empty(2, padded, dtype=torch.int32, device=device.torch_device)
        values = torch.empty(padded, 1 + scored.top, device=device.torch_device)
        ids = torch.empty(padded, scored.top, dtype=torch.int32, device=device.torch_device)
        device.copy(sent, there)
        buffers = self._decoder.buffers.rows(tokens, size)
        for first in range(0, padded, size):
            here = slice(first, first + size)
            score = partial(self._score, buffers, there[0, here], there[1, here])
            device.submit(partial(score, values[here], ids[here]))
        fetched = (
            device.pinned((padded, 1 + scored.top), torch.float32),
            device.pinned((padded, scored.top), torch.int32),
        )
        device.copy(values, fetched[0])
        device.copy(ids, fetched[1])
        return PendingScores(scored, *fetched)

    def _score(
        self, buffers: Buffers, rows: Tensor, targets: Tensor, values: Tensor, ids: Tensor
    ) -> None:
        self._decoder.head(buffers, rows)
        top = ids.shape[1]
        logprobs, top_ids, top_logprobs = score_tokens(buffers.logits, targets.long(), top)
        values[:, 0] = logprobs
        values[:, 1:] = top_logprobs
        ids.copy_(top_ids)


@dataclass(frozen=True, slots=True)
class PendingScores:
    """Scores on their way to the host.

    Attributes:
        scored: what they are of.
        values: float32 [R or more, 1 + K]; a token's log-probability and its alternatives'.
        ids: int32 [R or more, K]; the alternatives.
    """

    scored: ScoredRows
    values: Tensor
    ids: Tensor

    def collect(self) -> dict[int, TokenScores]:
        """The scores by slot, once the step was waited for."""
        count = len(self.scored.rows)
        values = self.values[:count].numpy()
        scores = TokenScores(values[:, 0], self.ids[:count].numpy(), values[:, 1:])
        return self.scored.by_slot(scores)
