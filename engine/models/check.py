"""Whether files are a model that the engine can load, and why not: by headers alone. No torch."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace

from engine.catalog import ModelFiles, resolve
from engine.config import ModelConfig
from engine.errors import CheckpointError
from engine.gguf import GGUFFile
from engine.models.families import load_config
from engine.models.headers import first_of, gguf_headers, safetensors_headers
from engine.models.names import FREQUENCY_FACTORS, Target, gguf_targets, huggingface_targets
from engine.tokenizer import Tokenizer, load_tokenizer

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class CheckedModel:
    """A model that can be loaded: its files, its configuration and its tokenizer."""

    files: ModelFiles
    config: ModelConfig
    tokenizer: Tokenizer


def check_model(model: str, *, control_tokens_in_messages: bool = False) -> CheckedModel:
    """Check everything of a model but the numbers in its weights, of which none is read.

    Its configuration, the names, shapes and types of its tensors, the lengths of its files, and
    its tokenizer.

    Args:
        model: as `engine.catalog.resolve` takes it.
        control_tokens_in_messages: see `EngineConfig`.

    Raises:
        ModelNotFound, FilesUnreadable: there is nothing, or it cannot be read; this may pass.
        UnsupportedModel, CheckpointError, TokenizerError: the files are no model that can be
            loaded (`engine.errors.MODEL_FAULTS`); the message says why.
    """
    files = resolve(model)
    with GGUFFile(files.gguf) if files.gguf else nullcontext():  # its header is read once
        config = load_config(files)
        headers = gguf_headers(files.gguf) if files.gguf else safetensors_headers(files.folder)
        shapes = {name: header.shape for name, header in headers.items()}
        fit(str(files.gguf or files.folder), shapes, config, gguf=files.gguf is not None)
        tokenizer = load_tokenizer(files, control_tokens_in_messages=control_tokens_in_messages)
    return CheckedModel(files, _with_ends(config, tokenizer), tokenizer)


def _with_ends(config: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    """The configuration, with the tokenizer's end tokens among those that end an answer."""
    ends = dict.fromkeys((*config.eos_token_ids, *tokenizer.end_token_ids))
    return replace(config, eos_token_ids=tuple(end for end in ends if end < config.vocab_size))


def fit(
    source: str, shapes: Shapes, config: ModelConfig, *, gguf: bool = False
) -> dict[str, Target]:
    """Where each of a checkpoint's tensors goes.

    Args:
        source: what to call the checkpoint in an error.
        shapes: of all its tensors, by name.
        config: what they are to fit.
        gguf: whether the names are those of GGUF files, and not of Hugging Face.

    Raises:
        CheckpointError: they are not exactly those that the configuration calls for; the message
            names those that are not, the first of each kind.
    """
    if config.num_layers > len(shapes):
        raise CheckpointError(
            f"{source} does not fit its configuration, which has {config.num_layers:,} layers: "
            f"there are only {len(shapes):,} tensors."
        )
    targets = gguf_targets(config) if gguf else huggingface_targets(config)
    wanted = {name: target.shape for name, target in targets.items()}
    if FREQUENCY_FACTORS in shapes:
        wanted[FREQUENCY_FACTORS] = (config.head_dim // 2,)
    missing = sorted(wanted.keys() - shapes.keys())
    unexpected = sorted(
        name for name in shapes.keys() - wanted.keys() if not _harmless(name, config)
    )
    wrong = [
        f"{name} is {shapes[name]}, not {shape}"
        for name, shape in sorted(wanted.items())
        if shapes.get(name, shape) != shape
    ]
    problems = [
        f"{title}: {first_of(names)}"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of a wrong shape", wrong),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{source} does not fit its configuration. Tensors {'; '.join(problems)}."
        )
    return targets


def _harmless(name: str, config: ModelConfig) -> bool:
    """Whether a tensor only repeats what is known: old rotary buffers, a copy of a tied head."""
    return name.endswith("rotary_emb.inv_freq") or (
        config.tie_embeddings and name == "lm_head.weight"
    )
