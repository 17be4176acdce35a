"""Tiny models of transformers, written as GGUF files."""

from pathlib import Path

import gguf
import numpy as np
import torch
from gguf.quants import dequantize, quantize

from oracle import Model


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """As llama.cpp's converter does (``convert_hf_to_gguf.py``, ``LlamaModel.permute``)."""
    split = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return split.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(
    path: Path,
    oracle: Model,
    architecture: gguf.MODEL_ARCH,
    type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    frequency_factors: np.ndarray | None = None,
) -> Path:
    """Write the oracle's weights; matrices in ``type``, which the oracle then takes over itself."""
    config = oracle.config
    names = gguf.get_tensor_name_map(architecture, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[architecture])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(oracle.model.layers[0].self_attn.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, parameter in oracle.named_parameters():
        weights = parameter.detach().numpy()
        own_type = type if weights.ndim == 2 else gguf.GGMLQuantizationType.F32
        parameter.data = torch.from_numpy(dequantize(quantize(weights, own_type), own_type).copy())
        module = name.split(".")[-2]
        if architecture == gguf.MODEL_ARCH.LLAMA and module in heads:
            weights = permute(weights, heads[module])
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None
        writer.add_tensor(target, quantize(weights, own_type), raw_dtype=own_type)
    if frequency_factors is not None:
        writer.add_tensor("rope_freqs.weight", frequency_factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
