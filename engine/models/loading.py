"""From a checkpoint's files to a decoder that is ready to run. Strict: nothing is guessed."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from operator import attrgetter
from typing import Protocol

import torch
from torch import Tensor, nn

from engine.catalog import ModelFiles
from engine.config import ModelConfig
from engine.kernels.backend import Backend
from engine.kernels.grouped import GroupedWeight
from engine.models.check import fit
from engine.models.checkpoint import Checkpoint, GGUFCheckpoint, SafetensorsCheckpoint
from engine.models.decoder import Decoder, Linear, QuantizedWeight
from engine.models.names import FREQUENCY_FACTORS, Target
from engine.models.staged import CudaCopies, ReadReport, StagedReader, Stored

ModelSource = ModelFiles | Checkpoint
"""Files, or a checkpoint with the tensor names of Hugging Face's that is open already."""


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
    source: ModelSource,
    config: ModelConfig,
    *,
    backend: Backend,
    device: torch.device,
    dtype: torch.dtype,
    prepare: Preparation | None = None,
    at_once: int = 1,
    keep_groups: bool = False,
    reader: StagedReader | None = None,
    report: Callable[[ReadReport], None] | None = None,
) -> Decoder:
    """Build the decoder and fill it from its checkpoint.

    Args:
        source: a Hugging Face folder or a GGUF file, or an open checkpoint.
        config: as `engine.models.families.load_config` read it from the same files.
        backend: computes the decoder.
        device: where the weights go.
        dtype: what they are cast to, if they are not prepared otherwise.
        prepare: changes projections one by one, so that no second copy of the model is in memory.
        at_once: projections that are read and prepared at the same time, by a thread each.
        keep_groups: keep projections that a GGUF file stores in groups of 4 or 8 bits as they are,
            and prepare only the others.
        reader: reads plain tensors straight to the device; by default one where that is a GPU.
        report: called with what reading took, where there was a reader.

    Raises:
        CheckpointError: the files are missing or damaged, or their tensors are not exactly those
            that the configuration calls for; the message names the first that are not.
    """
    with ExitStack() as stack:
        checkpoint, targets = _open(source, config, stack)
        plain = isinstance(checkpoint, SafetensorsCheckpoint)
        if reader is None and plain and device.type == "cuda":
            reader = StagedReader(CudaCopies(device))
        with torch.device("meta"):
            decoder = Decoder(config, backend)
        filling = _Filling(decoder, checkpoint, targets, device, dtype, reader)
        filling.vectors()
        if prepare is not None:
            filling.read()  # norms move into projections
        filling.projections(prepare, keep_groups=keep_groups, at_once=at_once)
        filling.read()
        factors = None
        if FREQUENCY_FACTORS in checkpoint.shapes:
            factors = checkpoint.read(FREQUENCY_FACTORS)
    if prepare is not None:
        prepare.rest(decoder)
    decoder.finish(device, factors)
    if reader is not None and reader.report.bytes and report is not None:
        report(reader.report)
    return decoder.eval()


def _open(
    source: ModelSource, config: ModelConfig, stack: ExitStack
) -> tuple[Checkpoint, dict[str, Target]]:
    """A checkpoint, and where its tensors go."""
    checkpoint: Checkpoint
    if not isinstance(source, ModelFiles):
        checkpoint = source
    elif source.gguf:
        checkpoint = GGUFCheckpoint(source.gguf, stack)
    else:
        checkpoint = SafetensorsCheckpoint(source.folder, stack)
    gguf = isinstance(checkpoint, GGUFCheckpoint)
    return checkpoint, fit(checkpoint.source, checkpoint.shapes, config, gguf=gguf)


class _Filling:
    """Moves a checkpoint's tensors into a decoder whose parameters have no memory yet."""

    def __init__(
        self,
        decoder: Decoder,
        checkpoint: Checkpoint,
        targets: Mapping[str, Target],
        device: torch.device,
        dtype: torch.dtype,
        reader: StagedReader | None,
    ) -> None:
        self._decoder = decoder
        self._checkpoint = checkpoint
        self._device, self._dtype = device, dtype
        self._reader = reader
        self._staged: list[tuple[Stored, Tensor]] = []  # what `read` reads
        # The tensors that make up each parameter, in the order of its rows.
        self._tensors: dict[str, list[tuple[str, Target]]] = defaultdict(list)
        for name, target in sorted(targets.items(), key=lambda item: item[1].start):
            self._tensors[target.parameter].append((name, target))

    def vectors(self) -> None:
        """Everything but projections: norms, biases, the embedding."""
        weights = {f"{path}.weight" for path, _ in self._linears()}
        for parameter in self._tensors.keys() - weights:
            self._copy(parameter)

    def projections(self, prepare: Preparation | None, *, keep_groups: bool, at_once: int) -> None:
        """The projections, as they are stored, prepared or plain."""

        def fill(path: str, linear: Linear) -> None:
            self._projection(path, linear, prepare, keep_groups=keep_groups)

        if at_once == 1:
            for path, linear in self._linears():
                fill(path, linear)
            return
        # The largest first, which is the head: it would be what the others wait for.
        linears = sorted(self._linears(), key=lambda each: -each[1].inputs * each[1].outputs)
        with ThreadPoolExecutor(at_once) as pool:
            filled = [pool.submit(fill, *each) for each in linears]
            try:
                for each in filled:
                    each.result()
            finally:
                pool.shutdown(cancel_futures=True)  # after an error, what is not begun

    def _projection(
        self, path: str, linear: Linear, prepare: Preparation | None, *, keep_groups: bool
    ) -> None:
        tied = path == "head" and self._decoder.config.tie_embeddings
        parameter = "embedding" if tied else f"{path}.weight"
        groups = self._groups(parameter) if keep_groups else None
        if groups is not None:
            linear.replace(groups)
        elif prepare is not None:
            linear.replace(prepare.projection(self._decoder, path, self._whole(parameter)))
        elif not tied:
            self._copy(parameter)

    def _linears(self) -> list[tuple[str, Linear]]:
        modules = self._decoder.named_modules()
        return [(path, module) for path, module in modules if isinstance(module, Linear)]

    def read(self) -> None:
        """Read what was left for later, in the order of the files."""
        if self._reader is not None:
            self._reader.fill(self._staged)
        self._staged = []

    def _copy(self, parameter: str) -> None:
        """Take memory for a parameter, and fill it, at the latest in `read`."""
        *owner, name = parameter.rsplit(".", 1)
        module = self._decoder.get_submodule(owner[0]) if owner else self._decoder
        filled, later = self._filled(parameter, module.get_parameter(name).shape, self._dtype)
        self._staged += later
        setattr(module, name, nn.Parameter(filled, requires_grad=False))

    def _whole(self, parameter: str) -> Tensor:
        """A parameter in float32, filled."""
        rows = sum(target.shape[0] for _, target in self._tensors[parameter])
        shape = (rows, *self._tensors[parameter][0][1].shape[1:])
        filled, staged = self._filled(parameter, shape, torch.float32)
        if self._reader is not None:
            self._reader.fill(staged)
        return filled

    def _filled(
        self, parameter: str, shape: tuple[int, ...], dtype: torch.dtype
    ) -> tuple[Tensor, list[tuple[Stored, Tensor]]]:
        """A parameter, and what is yet to be read into it."""
        filled = torch.empty(shape, dtype=dtype, device=self._device)
        staged = []
        for tensor, target in self._tensors[parameter]:
            rows = filled.narrow(0, target.start, target.shape[0])
            stored = self._checkpoint.stored(tensor) if self._reader is not None else None
            if stored is not None:
                staged.append((stored, rows))
            else:
                rows.copy_(_in_order(self._checkpoint.read(tensor), target))
        return filled, staged

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
