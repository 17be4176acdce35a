"""From a checkpoint's files to a decoder that is ready to run. Strict: nothing is guessed."""

from collections.abc import Mapping
from contextlib import ExitStack

import torch
from torch import Tensor

from engine.catalog import ModelFiles
from engine.config import ModelConfig
from engine.errors import CheckpointError
from engine.kernels.grouped import GroupedWeight
from engine.models.checkpoint import Checkpoint, GGUFCheckpoint, SafetensorsCheckpoint
from engine.models.decoder import Decoder, Linear
from engine.models.names import Target, gguf_targets, huggingface_targets

# llama.cpp's name for the numbers by which it divides the rotary frequencies (Llama 3 scaling).
FREQUENCY_FACTORS = "rope_freqs.weight"


def load_model(
    files: ModelFiles,
    config: ModelConfig,
    *,
    device: torch.device,
    dtype: torch.dtype,
    pack: bool = True,
    keep_groups: bool = False,
) -> Decoder:
    """Build the decoder and fill it from its checkpoint.

    Args:
        files: a Hugging Face folder or a GGUF file.
        config: as `engine.models.families.load_config` read it from the same files.
        device: where the weights go.
        dtype: what they are cast to.
        pack: lay the weights out for the device. Without it they can be changed, and `Decoder.pack`
            or `Decoder.quantise` is left to the caller.
        keep_groups: leave projections in the groups of 4 or 8 bits that a GGUF file has them in,
            where it does.

    Raises:
        CheckpointError: the files are missing or damaged, or their tensors are not exactly those
            that the configuration calls for; the message names every one that is not.
    """
    with ExitStack() as stack:
        checkpoint: Checkpoint
        if files.gguf:
            checkpoint = GGUFCheckpoint(files.gguf, stack)
            targets = gguf_targets(config)
        else:
            checkpoint = SafetensorsCheckpoint(files.folder, stack)
            targets = huggingface_targets(config)
        _check(checkpoint, targets, config)
        with torch.device("meta"):
            decoder = Decoder(config)
        decoder.to(dtype).to_empty(device=device)
        if keep_groups:
            targets = _fill_groups(decoder, checkpoint, targets)
        _fill(decoder, checkpoint, targets)
        factors = None
        if FREQUENCY_FACTORS in checkpoint.shapes:
            factors = checkpoint.read(FREQUENCY_FACTORS)
    decoder.finish(device, factors)
    if pack:
        decoder.pack()
    return decoder.eval()


def _fill_groups(
    decoder: Decoder, checkpoint: Checkpoint, targets: Mapping[str, Target]
) -> dict[str, Target]:
    """Give projections whose every part is stored in groups those; returns what is left to fill."""
    left = dict(targets)
    for path, module in decoder.named_modules():
        if not isinstance(module, Linear):
            continue
        tied = path == "head" and decoder.config.tie_embeddings
        parameter = "embedding" if tied else f"{path}.weight"
        names = [name for name, target in targets.items() if target.parameter == parameter]
        names.sort(key=lambda name: targets[name].start)
        parts = [checkpoint.read_groups(name) for name in names]
        found = [part for part in parts if part is not None]
        if len(found) < len(parts):
            continue
        rows = [
            [
                _unpermute(each, targets[name].permuted_heads)
                if targets[name].permuted_heads
                else each
                for each in (part.values, part.scales, part.lows)
            ]
            for name, part in zip(names, found, strict=True)
        ]
        values, scales, lows = (torch.cat(each) for each in zip(*rows, strict=True))
        module.replace(GroupedWeight(values, scales, lows, max(part.bits for part in found)))
        if not tied:  # the embedding itself is filled as well
            for name in names:
                del left[name]
    return left


def _fill(decoder: Decoder, checkpoint: Checkpoint, targets: Mapping[str, Target]) -> None:
    parameters = dict(decoder.named_parameters())
    for name, target in targets.items():
        tensor = checkpoint.read(name)
        if target.permuted_heads:
            tensor = _unpermute(tensor, target.permuted_heads)
        parameters[target.parameter].narrow(0, target.start, target.shape[0]).copy_(tensor)


def _unpermute(rows: Tensor, heads: int) -> Tensor:
    """Undo llama.cpp's reordering of each head's rows (``LlamaModel.permute`` of its converter).

    It interleaves the two halves of a head, as its rotation pairs neighbours; ours pairs halves.
    """
    paired = rows.view(heads, -1, 2, *rows.shape[1:])
    return paired.transpose(1, 2).reshape(rows.shape)


def _check(checkpoint: Checkpoint, targets: Mapping[str, Target], config: ModelConfig) -> None:
    shapes = checkpoint.shapes
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
        f"{title}: {', '.join(names)}"
        for title, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("of a wrong shape", wrong),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"{checkpoint.source} does not fit its configuration. Tensors {'; '.join(problems)}."
        )


def _harmless(name: str, config: ModelConfig) -> bool:
    """Whether a tensor only repeats what is known: old rotary buffers, a copy of a tied head."""
    return name.endswith("rotary_emb.inv_freq") or (
        config.tie_embeddings and name == "lm_head.weight"
    )
