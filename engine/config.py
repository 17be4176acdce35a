"""How an engine is set up. Frozen values; nothing here reads the environment."""

from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.errors import InvalidConfig

GROUP_SIZES = (32, 64, 128)
BatchingPolicy = Literal["continuous", "dynamic", "static"]
Dtype = Literal["auto", "bfloat16", "float16", "float32"]
Quantization = Literal["auto", "none", "int8", "fp8", "int4"]
CacheDtype = Literal["auto", "bfloat16", "float16", "float32", "int8", "fp8"]
STAND_IN = "stand-in"


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Settings of one engine.

    Attributes:
        model: a built-in name (``smollm2``), a Hugging Face folder, or a GGUF file.
        device: ``auto`` (CUDA where there is one), ``cpu``, ``cuda`` or ``cuda:N``. ``stand-in``
            runs on a CPU as a GPU would, slowly: for tests.
        dtype: ``auto`` or ``bfloat16``, ``float16``, ``float32``. Auto is bfloat16 on CUDA and on
            CPUs with bf16 instructions, else float32.
        quantization: ``int8`` rounds weights and activations of every projection to 8 bits
            (W8A8, in a rotated basis), ``fp8`` to float8_e4m3fn (W8A8, on GPUs), ``int4`` keeps
            weights in 4 bits (W4A8 on CPUs, W4A16 on GPUs); ``none`` computes in ``dtype``.
            ``auto`` is int8 on a CPU whose kernels can be built and where no dtype is asked for,
            else none.
        group_size: inputs that share a scale in int4, -1 for all of a channel; ``None`` keeps the
            groups of a GGUF file that has some (Q4_0, Q4_1, Q8_0: without a loss), else 32.
        symmetric: int4 steps lie evenly around zero, where the engine rounds weights itself.
        block_size: tokens in one block of the KV cache.
        kv_cache_dtype: of keys and values; ``fp8`` is float8_e4m3fn. ``auto`` is int8 with
            quantized weights on a CPU, else ``dtype``.
        kv_cache_bytes: memory for the KV cache; ``None`` picks a share of what is free.
        max_num_seqs: most sequences running at once; ``None`` picks one for the device.
        max_batch_tokens: token budget of one step; ``None`` picks one for the device.
        max_model_len: context limit; ``None`` is the model's own.
        batching: ``continuous`` admits in every step; ``static`` fills a batch and runs it to its
            end; ``dynamic`` is static with a time-out for filling.
        batch_size: requests in a static or dynamic batch; ``None`` is ``max_num_seqs``.
        batch_timeout: seconds a dynamic batch waits to fill.
        prefix_caching: share the blocks of equal prefixes.
        chunked_prefill: let a long prompt be computed over several steps beside decodes. Without
            it a prompt is computed whole in one step.
        output_reserve: share of a request's remaining ``max_tokens`` that admission keeps free,
            though no more than twice what answers took of late.
        threads: CPU threads; ``None`` is all this process may use.
        seed: seeds the draws of requests that carry no seed of their own; ``None`` is random.
        overlap: on a GPU, schedule a step while the one ahead of it runs.
        graphs: on a GPU, record what is launched again and again, and replay it.
        cascade: on a GPU, read keys that many sequences of a step share once for all of them.
        warm_up: on a GPU, run a step of every kind before the first request. Otherwise kernels are
            compiled when they are first needed, and the cache may leave too little memory for them.
        control_tokens_in_messages: let control tokens that are spelled out in chat messages, such
            as ``<|im_end|>``, be control tokens. Otherwise only the chat template can write them,
            and in messages they are text.
        keep_prepared_weights: on a CPU, keep weights of 8 or 4 bits on disk as they were prepared
            for it, in bounded space, and start from them the next time; see `engine.prepared`.
    """

    model: str = "smollm2"
    device: str = "auto"
    dtype: str = "auto"
    quantization: Quantization = "auto"
    group_size: int | None = None
    symmetric: bool = False
    block_size: int = 16
    kv_cache_dtype: CacheDtype = "auto"
    kv_cache_bytes: int | None = None
    max_num_seqs: int | None = None
    max_batch_tokens: int | None = None
    max_model_len: int | None = None
    batching: BatchingPolicy = "continuous"
    batch_size: int | None = None
    batch_timeout: float = 0.05
    prefix_caching: bool = True
    chunked_prefill: bool = True
    output_reserve: float = 0.5
    threads: int | None = None
    seed: int | None = None
    overlap: bool = True
    graphs: bool = True
    cascade: bool = True
    warm_up: bool = True
    control_tokens_in_messages: bool = False
    keep_prepared_weights: bool = True

    def __post_init__(self) -> None:
        _check_choice("dtype", self.dtype, Dtype)
        _check_choice("quantization", self.quantization, Quantization)
        _check_choice("kv_cache_dtype", self.kv_cache_dtype, CacheDtype)
        _check_choice("batching", self.batching, BatchingPolicy)
        if self.group_size not in (None, -1, *GROUP_SIZES):
            raise InvalidConfig(
                f"group_size {self.group_size} is not -1, 32, 64 or 128.", field="group_size"
            )
        if not 0 <= self.output_reserve <= 1:
            raise InvalidConfig(
                f"output_reserve must be from 0 to 1, not {self.output_reserve}.",
                field="output_reserve",
            )
        for name in (
            "block_size",
            "kv_cache_bytes",
            "max_num_seqs",
            "max_batch_tokens",
            "max_model_len",
            "batch_size",
            "threads",
        ):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidConfig(f"{name} must be at least 1, not {value}.", field=name)


def _check_choice(field: str, value: str, choices: Any) -> None:
    """Refuse a value that is none of the literals of ``choices``."""
    allowed = get_args(choices)
    if value not in allowed:
        *others, last = allowed
        raise InvalidConfig(f"{field} {value!r} is not {', '.join(others)} or {last}.", field=field)


RopeScaling = Literal["none", "linear", "llama3"]


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Rotary position embedding (RoFormer, Su et al. 2021) and its scaling."""

    theta: float = 10_000.0
    scaling: RopeScaling = "none"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position: int = 8_192


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The shape of one decoder of the Llama-like families.

    ``family`` is one of `engine.models.families.FAMILIES`. ``head_dim`` is stated, as some
    families do not derive it from the width. ``qkv_bias`` is Qwen2's, ``qk_norm`` Qwen3's.
    ``eos_token_ids`` holds every id that ends an answer. ``sliding_window`` counts the keys a
    token sees, itself included, in the layers of ``sliding_layers`` (``None``: in every layer).
    """

    family: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    rms_norm_eps: float
    rope: RopeConfig
    tie_embeddings: bool
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    sliding_window: int | None = None
    sliding_layers: tuple[int, ...] | None = None
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...] = ()

    def window(self, layer: int) -> int | None:
        """The sliding window of one layer; ``None`` sees everything before it."""
        slides = self.sliding_layers is None or layer in self.sliding_layers
        return self.sliding_window if slides else None

    def kv_bytes_per_token(self, itemsize: int) -> int:
        """Bytes of keys and values that one token takes over all layers."""
        return 2 * self.num_layers * self.num_kv_heads * self.head_dim * itemsize
