"""Log-probabilities of tokens that are given, from rows of logits."""

from torch import Tensor


def score_tokens(logits: Tensor, targets: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """The log-probability of one token a row, and the most probable tokens there.

    Args:
        logits: float32 [M, vocab]; not changed, and not copied as a whole.
        targets: int64 [M]; the tokens.
        top: K, at most vocab.

    Returns:
        As `TokenScores` has them: float32 [M], int64 [M, K], float32 [M, K].
    """
    total = logits.logsumexp(dim=-1, keepdim=True)
    values, ids = logits.topk(top, dim=-1)
    return (logits.gather(1, targets.unsqueeze(1)) - total).squeeze(1), ids, values - total
