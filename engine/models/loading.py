"""From a checkpoint's files to a decoder that is ready to run. Strict: nothing is guessed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from operator import attrgetter
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.catalog import ModelFiles
from engine.config import ModelConfig
from engine.errors import CheckpointError
from engine.kernels.backend import Backend
from engine.kernels.grouped import GroupedWeight
from engine.models.checkpoint import Checkpoint, GGUFCheckpoint, SafetensorsCheckpoint
from engine.models.decoder import Decoder, Linear, QuantizedWeight
from engine.models.names import Target, gguf_targets, huggingface_targets

# llama.cpp's name for the numbers by which it divides the rotary frequencies (Llama 3 scaling).
FREQUENCY_FACTORS = "rope_freqs.weight"


class Preparation(Protocol):
    """Changes weights on their way from the checkpoint into the decoder."""

    def projection(self, decoder: Decoder, path: str, weight: Tensor) -> Tensor | QuantizedWeight:
        """What a projection runs on in place of its weight, float32 [outputs, inputs].

        The call may change or keep the weight. Norms, biases and embedding are filled in already.
        ``path`` is the projection's name in the decoder, as ``layers.3.attention.qkv``.
        """

    def rest(self, decoder: Decoder) -> None:
        """Change everything else, once all projections are in place."""


def load_model(
    files: ModelFiles,
    config: ModelConfig,
    *,
    backend: Backend,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Preparation | None = None,
    keep_groups: bool = False,
) -> Decoder:
    """Build the decoder and fill it from its checkpoint.

    Args:
        files: a Hugging Face folder or a GGUF file.
        config: as `engine.models.families.load_config` read it from the same files.
        backend: computes the decoder.
        device: where the weights go.
        dtype: what they are cast to, if they are not prepared otherwise.
        prepare: changes projections one by one, so that no second copy of the model is in memory.
        keep_groups: keep projections that a GGUF file stores in groups of 4 or 8 bits as they are,
            and prepare only the others.

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
            decoder = Decoder(config, backend)
        filling = _Filling(decoder, checkpoint, targets, device, dtype)
        filling.vectors()
        filling.projections(prepare, keep_groups=keep_groups)
        factors = None
        if FREQUENCY_FACTORS in checkpoint.shapes:
            factors = checkpoint.read(FREQUENCY_FACTORS)
    if prepare is not None:
        prepare.rest(decoder)
    decoder.finish(device, factors)
    return decoder.eval()


class _Filling:
    """Moves a checkpoint's tensors into a decoder whose parameters have no memory yet."""

    def __init__(
        self,
        decoder: Decoder,
        checkpoint: Checkpoint,
        targets: Mapping[str, Target],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._decoder = decoder
        self._checkpoint = checkpoint
        self._device, self._dtype = device, dtype
        # The tensors that make up each parameter, in the order of its rows.
        self._tensors: dict[str, list[tuple[str, Target]]] = defaultdict(list)
        for name, target in sorted(targets.items(), key=lambda item: item[1].start):
            self._tensors[target.parameter].append((name, target))

    def vectors(self) -> None:
        """Everything but projections: norms, biases, the embedding."""
        weights = {f"{path}.weight" for path, _ in self._linears()}
        for parameter in self._tensors.keys() - weights:
            self._copy(parameter)

    def projections(self, prepare: Preparation | None, *, keep_groups: bool) -> None:
        """The projections, as they are stored, prepared or plain."""
        for path, linear in self._linears():
            tied = path == "head" and self._decoder.config.tie_embeddings
            parameter = "embedding" if tied else f"{path}.weight"
            groups = self._groups(parameter) if keep_groups else None
            if groups is not None:
                linear.replace(groups)
            elif prepare is not None:
                whole = torch.cat(list(self._read(parameter))).to(self._device)
                linear.replace(prepare.projection(self._decoder, path, whole))
            elif not tied:
                self._copy(parameter)

    def _linears(self) -> list[tuple[str, Linear]]:
        modules = self._decoder.named_modules()
        return [(path, module) for path, module in modules if isinstance(module, Linear)]

    def _copy(self, parameter: str) -> None:
        """Take memory for a parameter, and fill it."""
        *owner, name = parameter.rsplit(".", 1)
        module = self._decoder.get_submodule(owner[0]) if owner else self._decoder
        shape = module.get_parameter(name).shape
        filled = torch.empty(shape, dtype=self._dtype, device=self._device)
        for tensor, target in self._tensors[parameter]:
            rows = _in_order(self._checkpoint.read(tensor), target)
            filled.narrow(0, target.start, target.shape[0]).copy_(rows)
        setattr(module, name, nn.Parameter(filled, requires_grad=False))

    def _read(self, parameter: str) -> Iterator[Tensor]:
        for name, target in self._tensors[parameter]:
            yield _in_order(self._checkpoint.read(name), target).float()

    def _groups(self, parameter: str) -> GroupedWeight | None:
        """The parameter in groups of few bits, if all of its tensors are stored so."""
        stored = []
        for name, target in self._tensors[parameter]:
            found = self._checkpoint.read_groups(name)
            if found is None:
                return None
            stored.append((found, target))
        values, scales, lows = (
            torch.cat([_in_order(each(groups), target) for groups, target in stored]).to(
                self._device
            )
            for each in (attrgetter("values"), attrgetter("scales"), attrgetter("lows"))
        )
        return GroupedWeight(values, scales, lows, max(groups.bits for groups, _ in stored))


def _in_order(rows: Tensor, target: Target) -> Tensor:
    return _unpermute(rows, target.permuted_heads) if target.permuted_heads else rows


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
