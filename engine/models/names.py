"""Which part of which parameter each of a checkpoint's tensors fills."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from engine.config import ModelConfig
from engine.models.registry import FAMILIES

# llama.cpp's name for the numbers by which it divides the rotary frequencies (Llama 3 scaling).
FREQUENCY_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checkpoint's tensor goes.

    Attributes:
        parameter: its name in `engine.models.decoder.Decoder`.
        start: the parameter's row at which it begins (fused parameters hold several).
        shape: the shape it must have.
        permuted_heads: heads whose rows are in llama.cpp's rotary order; 0 where they are not.
    """

    parameter: str
    start: int
    shape: tuple[int, ...]
    permuted_heads: int = 0


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A layer's weight or vector, without its ending, under both kinds of names."""

    hf: str
    gguf: str
    target: Target
    bias: bool = False
    rotary_heads: int = 0


def huggingface_targets(config: ModelConfig) -> dict[str, Target]:
    """Tensor names of a Hugging Face checkpoint → their targets."""
    targets = {
        f"model.layers.{layer}.{tensor.hf}.{ending}": target
        for layer in range(config.num_layers)
        for tensor in _tensors(config)
        for ending, target in _endings(tensor, layer, permuted=False)
    }
    return targets | _outer(config, "model.embed_tokens", "model.norm", "lm_head")


def gguf_targets(config: ModelConfig) -> dict[str, Target]:
    """Tensor names of a GGUF file → their targets."""
    permuted = FAMILIES[config.family].permuted
    targets = {
        f"blk.{layer}.{tensor.gguf}.{ending}": target
        for layer in range(config.num_layers)
        for tensor in _tensors(config)
        for ending, target in _endings(tensor, layer, permuted=permuted)
    }
    return targets | _outer(config, "token_embd", "output_norm", "output")


def _outer(config: ModelConfig, embedding: str, norm: str, head: str) -> dict[str, Target]:
    table = (config.vocab_size, config.hidden_size)
    targets = {
        f"{embedding}.weight": Target("embedding", 0, table),
        f"{norm}.weight": Target("norm", 0, (config.hidden_size,)),
    }
    if not config.tie_embeddings:
        targets[f"{head}.weight"] = Target("head.weight", 0, table)
    return targets


def _endings(tensor: _Tensor, layer: int, *, permuted: bool) -> Iterator[tuple[str, Target]]:
    heads = tensor.rotary_heads if permuted else 0
    own = replace(
        tensor.target, parameter=f"layers.{layer}.{tensor.target.parameter}", permuted_heads=heads
    )
    if len(own.shape) == 1:
        yield "weight", own
        return
    yield "weight", replace(own, parameter=f"{own.parameter}.weight")
    if tensor.bias:
        yield "bias", replace(own, parameter=f"{own.parameter}.bias", shape=own.shape[:1])


def _tensors(config: ModelConfig) -> list[_Tensor]:
    hidden, inner = config.hidden_size, config.intermediate_size
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
    width, kv_width = heads * dim, kv_heads * dim
    qkv, gate_up = "attention.qkv", "feed_forward.gate_up"
    in_bias, out_bias, mlp_bias = config.qkv_bias, config.output_bias, config.mlp_bias
    query = Target(qkv, 0, (width, hidden))
    key = Target(qkv, width, (kv_width, hidden))
    value = Target(qkv, width + kv_width, (kv_width, hidden))
    output = Target("attention.output", 0, (hidden, width))
    gate = Target(gate_up, 0, (inner, hidden))
    up = Target(gate_up, inner, (inner, hidden))
    down = Target("feed_forward.down", 0, (hidden, inner))
    tensors = [
        _Tensor("input_layernorm", "attn_norm", Target("attention_norm", 0, (hidden,))),
        _Tensor("self_attn.q_proj", "attn_q", query, in_bias, heads),
        _Tensor("self_attn.k_proj", "attn_k", key, in_bias, kv_heads),
        _Tensor("self_attn.v_proj", "attn_v", value, in_bias),
        _Tensor("self_attn.o_proj", "attn_output", output, out_bias),
        _Tensor("post_attention_layernorm", "ffn_norm", Target("feed_forward_norm", 0, (hidden,))),
        _Tensor("mlp.gate_proj", "ffn_gate", gate, mlp_bias),
        _Tensor("mlp.up_proj", "ffn_up", up, mlp_bias),
        _Tensor("mlp.down_proj", "ffn_down", down, mlp_bias),
    ]
    if config.qk_norm:
        tensors += [
            _Tensor("self_attn.q_norm", "attn_q_norm", Target("attention.query_norm", 0, (dim,))),
            _Tensor("self_attn.k_norm", "attn_k_norm", Target("attention.key_norm", 0, (dim,))),
        ]
    return tensors
