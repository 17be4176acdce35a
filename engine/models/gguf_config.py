"""GGUF metadata → `ModelConfig`. Key names: ggml's docs/gguf.md."""

from pathlib import Path

from engine.config import ModelConfig, RopeConfig
from engine.errors import CheckpointError, UnsupportedModel
from engine.gguf import GGUFFile
from engine.models.fields import Fields
from engine.models.registry import family_of_gguf


def read(path: Path) -> ModelConfig:
    """Read the metadata; what it does not say (biases, tying) is told by the tensors' names.

    Raises:
        UnsupportedModel: the architecture or a feature is not known.
        CheckpointError: the file is unreadable, or a value is missing or makes no sense.
    """
    with GGUFFile(path) as file:
        values = dict(file.metadata)
        shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    architecture = str(values.get("general.architecture"))
    family = family_of_gguf(architecture)
    general = Fields(values, str(path))
    prefix = f"{architecture}."
    fields = Fields(
        {key.removeprefix(prefix): value for key, value in values.items()}, f"{path}: {prefix}*"
    )
    if fields.values.get("expert_count"):
        raise UnsupportedModel(f"{path}: a mixture of experts is not known.")
    if "token_embd.weight" not in shapes:
        raise CheckpointError(f"{path} has no tensor token_embd.weight.")

    hidden = fields.integer("embedding_length")
    heads = fields.integer("attention.head_count")
    head_dim = fields.integer("attention.key_length", hidden // heads)
    _reject_unsupported(fields, head_dim)
    vocab_size = shapes["token_embd.weight"][0]
    stops = [
        token_id
        for key in ("eos", "eot", "eom")
        for token_id in general.token_ids(f"tokenizer.ggml.{key}_token_id", vocab_size)
    ]
    bos = general.token_ids("tokenizer.ggml.bos_token_id", vocab_size)
    return ModelConfig(
        family=family.name,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=fields.integer("feed_forward_length"),
        num_layers=fields.integer("block_count"),
        num_heads=heads,
        num_kv_heads=fields.integer("attention.head_count_kv", heads),
        head_dim=head_dim,
        max_position=fields.integer("context_length"),
        rms_norm_eps=fields.number("attention.layer_norm_rms_epsilon"),
        rope=_rope(fields),
        tie_embeddings="output.weight" not in shapes,
        qkv_bias="blk.0.attn_q.bias" in shapes,
        output_bias="blk.0.attn_output.bias" in shapes,
        mlp_bias="blk.0.ffn_gate.bias" in shapes,
        qk_norm=family.qk_norm,
        sliding_window=(
            fields.integer("attention.sliding_window")
            if fields.values.get("attention.sliding_window")
            else None
        ),
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=tuple(dict.fromkeys(stops)),
    )


def _reject_unsupported(fields: Fields, head_dim: int) -> None:
    if fields.integer("rope.dimension_count", head_dim) != head_dim:
        raise UnsupportedModel(f"{fields.source}: rotating only a part of each head is not known.")
    if fields.integer("attention.value_length", head_dim) != head_dim:
        raise UnsupportedModel(f"{fields.source}: values of another width than keys are not known.")


def _rope(fields: Fields) -> RopeConfig:
    # Llama 3's scaling is not here: llama.cpp stores its factors as a tensor, rope_freqs.weight.
    theta = fields.number("rope.freq_base", 10_000.0)
    kind = fields.values.get("rope.scaling.type", "none")
    if kind == "none":
        return RopeConfig(theta)
    if kind == "linear":
        return RopeConfig(theta, "linear", fields.number("rope.scaling.factor"))
    raise UnsupportedModel(
        f"{fields.source}: rope scaling {kind!r} is not known; known are none and linear."
    )
