"""The configuration of a checkpoint, whatever its family and format. No torch."""

from engine.catalog import ModelFiles
from engine.config import ModelConfig
from engine.errors import CheckpointError
from engine.models import gguf_config, hf_config
from engine.models.registry import FAMILIES, Family

__all__ = ["FAMILIES", "Family", "load_config"]


def load_config(files: ModelFiles) -> ModelConfig:
    """Read a checkpoint's configuration, from ``config.json`` or a GGUF file's metadata.

    The ids that end an answer are gathered: ``eos_token_id`` of ``config.json`` and of
    ``generation_config.json``; a GGUF file's ``eos``, ``eot`` and ``eom``. What the tokenizer
    names beside them is in `engine.tokenizer.Tokenizer.end_token_ids`.

    Raises:
        UnsupportedModel: the architecture, or something it asks for, is not known here; the
            message lists what is.
        CheckpointError: the configuration is missing, unreadable or contradicts itself.
    """
    config = gguf_config.read(files.gguf) if files.gguf else hf_config.read(files.folder)
    if config.num_heads % config.num_kv_heads:
        raise CheckpointError(
            f"{files.name}: {config.num_heads} query heads do not divide among "
            f"{config.num_kv_heads} key heads."
        )
    if config.head_dim % 2:
        raise CheckpointError(f"{files.name}: heads of {config.head_dim} cannot be rotated.")
    return config
