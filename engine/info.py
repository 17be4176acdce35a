"""What an engine says of itself once it is loaded."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is and what it chose for its machine. Sizes are tokens, blocks, sequences.

    ``hardware`` is the name of the GPU or of the processor.
    """

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
    hardware: str = ""

    @property
    def weights(self) -> str:
        """What the weights are computed in: ``int8``, or the dtype where nothing is quantized."""
        return self.dtype if self.quantization == "none" else self.quantization

    @property
    def rated_as(self) -> str:
        """What its speed is kept under: all that makes engines of one model equally fast.

        ``cuda:NVIDIA H200, bfloat16`` or ``cpu:AMD EPYC 9B14, 2 threads, int8``.
        """
        kind = self.device.partition(":")[0]
        where = f"{kind}:{self.hardware}" if self.hardware else kind
        return ", ".join(filter(None, (where, self._threads_told(kind), self.weights)))

    def _threads_told(self, kind: str) -> str:
        if kind != "cpu":
            return ""
        return f"{self.threads} {'thread' if self.threads == 1 else 'threads'}"

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
