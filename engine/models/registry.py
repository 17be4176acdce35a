"""The model families that the engine knows, by name and by what checkpoints call them."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from engine.errors import UnsupportedModel


@dataclass(frozen=True, slots=True)
class Family:
    """How one family differs from Llama, and what its configuration means where it is silent.

    Attributes:
        name: `ModelConfig.family`.
        architecture: its name in a Hugging Face ``config.json``.
        gguf: its name in a GGUF file; ``None`` where it ships under another family's.
        qkv_bias: biases on queries, keys and values, always.
        qk_norm: each query and key head is normalized.
        head_dim: default; ``None`` divides the width by the heads.
        sliding_window: default; ``None`` is none.
        windows_by_layer: has Qwen's ``use_sliding_window`` and ``max_window_layers``.
        permuted: a GGUF file holds its query and key rows in the order that llama.cpp rotates.
    """

    name: str
    architecture: str
    gguf: str | None
    qkv_bias: bool = False
    qk_norm: bool = False
    head_dim: int | None = None
    sliding_window: int | None = None
    windows_by_layer: bool = False
    permuted: bool = False


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        family.name: family
        for family in (
            # SmolLM and SmolLM2 are Llamas by name and by shape.
            Family("llama", "LlamaForCausalLM", "llama", permuted=True),
            # llama.cpp writes Mistral as a Llama.
            Family("mistral", "MistralForCausalLM", None, sliding_window=4096),
            Family(
                "qwen2",
                "Qwen2ForCausalLM",
                "qwen2",
                qkv_bias=True,
                sliding_window=4096,
                windows_by_layer=True,
            ),
            Family(
                "qwen3",
                "Qwen3ForCausalLM",
                "qwen3",
                qk_norm=True,
                head_dim=128,
                sliding_window=4096,
                windows_by_layer=True,
            ),
        )
    }
)


def family_of_architecture(architecture: str) -> Family:
    """The family of a Hugging Face architecture.

    Raises:
        UnsupportedModel: there is none; the message lists those there are.
    """
    for family in FAMILIES.values():
        if family.architecture == architecture:
            return family
    known = ", ".join(family.architecture for family in FAMILIES.values())
    raise UnsupportedModel(f"The architecture {architecture!r} is not known; known are {known}.")


def family_of_gguf(architecture: str) -> Family:
    """The family of a GGUF file's ``general.architecture``.

    Raises:
        UnsupportedModel: there is none; the message lists those there are.
    """
    for family in FAMILIES.values():
        if family.gguf == architecture:
            return family
    known = ", ".join(family.gguf for family in FAMILIES.values() if family.gguf)
    raise UnsupportedModel(
        f"The GGUF architecture {architecture!r} is not known; known are {known}."
    )
