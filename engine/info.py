"""What an engine says of itself once it is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is and what it chose for its machine. Sizes are tokens, blocks, sequences."""

    model: str
    context_length: int
    vocab_size: int
    device: str
    dtype: str
    num_blocks: int
    block_size: int
    max_num_seqs: int
    max_batch_tokens: int
    load_seconds: float
    kernels: str = "reference"
    quantization: str = "none"
    kv_cache_dtype: str = ""
    threads: int = 1
    reasons: tuple[str, ...] = ()

    @property
    def description(self) -> str:
        """One line for a log: what was chosen, and why where the configuration did not say."""
        types = self.dtype if self.quantization == "none" else f"{self.quantization}, {self.dtype}"
        why = f". Chosen: {'; '.join(self.reasons)}" if self.reasons else ""
        return (
            f"{self.model} on {self.device} in {types}: up to {self.max_num_seqs} sequences "
            f"and {self.max_batch_tokens} tokens a step, context {self.context_length}, "
            f"{self.kv_cache_dtype} cache of {self.num_blocks} blocks of {self.block_size} tokens, "
            f"{self.kernels} kernels, {self.threads} threads, "
            f"loaded in {self.load_seconds:.1f} s{why}"
        )
