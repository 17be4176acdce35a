"""How a step's attention is divided among the programs of a kernel."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionTasks:
    """Decodes are the first sequences and have one token each; the others are prefills.

    Attributes:
        num_decodes: decodes, padding included.
        num_prefills: the sequences behind them.
        max_decode_context: most keys of any decode.
    """

    num_decodes: int
    num_prefills: int
    max_decode_context: int
