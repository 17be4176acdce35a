"""Hugging Face ``config.json`` → `ModelConfig`. Defaults are those of transformers' classes."""

from pathlib import Path

from engine.config import ModelConfig, RopeConfig
from engine.errors import CheckpointError, UnsupportedModel
from engine.models.fields import Fields, read_json
from engine.models.registry import Family, family_of_architecture


def read(folder: Path) -> ModelConfig:
    """Read ``config.json``, and the stop ids of ``generation_config.json`` where there is one.

    Raises:
        UnsupportedModel: the architecture or a feature is not known.
        CheckpointError: a file is missing or unreadable, or a value makes no sense.
    """
    fields = read_json(folder / "config.json")
    family = family_of_architecture(_architecture(fields))
    _reject_unsupported(fields)
    vocab_size = fields.integer("vocab_size")
    stops = fields.token_ids("eos_token_id", vocab_size)
    generation = folder / "generation_config.json"
    if generation.is_file():
        stops += read_json(generation).token_ids("eos_token_id", vocab_size)
    bos = fields.token_ids("bos_token_id", vocab_size)

    hidden = fields.integer("hidden_size")
    heads = fields.integer("num_attention_heads")
    layers = fields.integer("num_hidden_layers")
    attention_bias = not family.qkv_bias and fields.flag("attention_bias", False)
    window, window_layers = _windows(fields, family, layers)
    return ModelConfig(
        family=family.name,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=fields.integer("num_key_value_heads", heads),
        head_dim=fields.integer("head_dim", family.head_dim or hidden // heads),
        max_position=fields.integer("max_position_embeddings"),
        rms_norm_eps=fields.number("rms_norm_eps", 1e-6),
        rope=_rope(fields),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        qkv_bias=family.qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=fields.flag("mlp_bias", False),
        qk_norm=family.qk_norm,
        sliding_window=window,
        sliding_layers=window_layers,
        bos_token_id=bos[0] if bos else None,
        eos_token_ids=tuple(dict.fromkeys(stops)),
    )


def _architecture(fields: Fields) -> str:
    names = fields.values.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise CheckpointError(f"{fields.source} does not state its architectures.")
    return names[0]


def _reject_unsupported(fields: Fields) -> None:
    quantization = fields.values.get("quantization_config")
    if quantization is not None:
        method = quantization.get("quant_method") if isinstance(quantization, dict) else None
        raise UnsupportedModel(
            f"{fields.source}: weights quantized by {method or 'an unnamed method'} are not read; "
            "known are plain bf16, fp16 and fp32 safetensors, and GGUF."
        )
    activation = fields.values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise UnsupportedModel(f"{fields.source}: hidden_act {activation!r} is not known but silu.")


def _windows(
    fields: Fields, family: Family, layers: int
) -> tuple[int | None, tuple[int, ...] | None]:
    """The sliding window and the layers that have it (``None``: all)."""
    if family.windows_by_layer and not fields.flag("use_sliding_window", False):
        return None, None
    # An explicit null turns the window off; only silence means the default.
    if fields.values.get("sliding_window", family.sliding_window) is None:
        return None, None
    window = fields.integer("sliding_window", family.sliding_window)
    if not family.windows_by_layer:
        return window, None
    kinds = fields.values.get("layer_types")
    if kinds is None:
        first = fields.values.get("max_window_layers", 28)
        if not isinstance(first, int):
            raise CheckpointError(f"{fields.source}: max_window_layers is {first!r}, no integer.")
        return window, tuple(range(first, layers))
    if not isinstance(kinds, list) or len(kinds) != layers:
        raise CheckpointError(f"{fields.source}: layer_types does not name {layers} layers.")
    strange = {str(kind) for kind in kinds} - {"full_attention", "sliding_attention"}
    if strange:
        raise UnsupportedModel(
            f"{fields.source}: layers of type {', '.join(sorted(strange))} are not known; "
            "known are full_attention and sliding_attention."
        )
    return window, tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention")


def _rope(fields: Fields) -> RopeConfig:
    # transformers 5 keeps everything in rope_parameters; 4 had rope_theta and rope_scaling.
    parameters = fields.section("rope_parameters")
    if not parameters.values:
        parameters = fields.section("rope_scaling")
    share = fields.values.get("partial_rotary_factor", 1)
    if parameters.values.get("partial_rotary_factor", share) not in (1, None):
        raise UnsupportedModel(f"{fields.source}: rotating only a part of each head is not known.")
    theta = parameters.number("rope_theta", fields.number("rope_theta", 10_000.0))
    kind = parameters.values.get("rope_type", parameters.values.get("type", "default"))
    if kind == "default":
        return RopeConfig(theta)
    if kind == "linear":
        return RopeConfig(theta, "linear", parameters.number("factor"))
    if kind == "llama3":
        return RopeConfig(
            theta,
            "llama3",
            parameters.number("factor"),
            parameters.number("low_freq_factor"),
            parameters.number("high_freq_factor"),
            parameters.integer("original_max_position_embeddings"),
        )
    raise UnsupportedModel(
        f"{fields.source}: rope scaling {kind!r} is not known; known are default, linear, llama3."
    )
