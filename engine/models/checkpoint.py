"""A checkpoint's tensors by name, whichever files they lie in."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import CheckpointError
from engine.gguf import GGUFFile, dequantize, has_groups, read_groups
from engine.kernels.grouped import GroupedWeight
from engine.models.fields import read_json
from engine.models.staged import Stored

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}


class Checkpoint(Protocol):
    """Tensors that can be asked for one by one."""

    @property
    def source(self) -> str:
        """What to call it in an error."""

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, by name."""

    def read(self, name: str) -> Tensor:
        """One tensor, of any floating dtype, on the CPU or where its parameter goes.

        Raises:
            CheckpointError: it cannot be read.
        """

    def read_groups(self, name: str) -> GroupedWeight | None:
        """A matrix that is stored in groups of few bits, as it is; ``None`` for any other."""

    def stored(self, name: str) -> Stored | None:
        """Where the tensor's numbers lie in a file, if they are plain there."""


class GGUFCheckpoint:
    """The tensors of a GGUF file, decoded to float32."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.source = str(path)
        self._file = stack.enter_context(GGUFFile(path))
        self.shapes = {name: tensor.shape for name, tensor in self._file.tensors.items()}

    def read(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        tensor = self._file.tensors[name]
        return torch.from_numpy(dequantize(self._file.raw(name), tensor.type, tensor.shape))

    def read_groups(self, name: str) -> GroupedWeight | None:
        """See `Checkpoint`."""
        tensor = self._file.tensors[name]
        if len(tensor.shape) != 2 or not has_groups(tensor.type):
            return None
        rows, columns = tensor.shape
        found = read_groups(self._file.raw(name), tensor.type, (rows, columns))
        values, scales, lows = (torch.from_numpy(each) for each in found[:3])
        return GroupedWeight(values, scales, lows, found.bits)

    def stored(self, name: str) -> Stored | None:
        """See `Checkpoint`: most of these are packed, and all are read as if they were."""
        return None


class SafetensorsCheckpoint:
    """The tensors of a Hugging Face folder: one safetensors file, or several with an index.

    Raises:
        CheckpointError: there is none, one is missing or damaged, an index names a tensor that its
            file does not hold, or a tensor is of no plain floating type.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.source = str(folder)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}
        self._stored: dict[str, Stored] = {}
        index = _read_index(folder)
        for path in sorted({folder / name for name in index.values()} or {folder / SINGLE_FILE}):
            file = _open(path, stack)
            names = file.keys()
            for name in names:
                stored = file.get_slice(name)
                if stored.get_dtype() not in _FLOATS:
                    raise CheckpointError(
                        f"{path}: {name} is stored as {stored.get_dtype()}; "
                        f"known are {', '.join(sorted(_FLOATS))}."
                    )
                self._files[name] = file
                self.shapes[name] = tuple(stored.get_shape())
            self._stored |= _places(path)
        lost = sorted(index.keys() - self.shapes.keys())
        if lost:
            raise CheckpointError(f"{folder / INDEX_FILE} names absent tensors: {', '.join(lost)}.")

    def read(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        try:
            tensor: Tensor = self._files[name].get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.source}: {name} cannot be read.") from error
        return tensor

    def read_groups(self, name: str) -> GroupedWeight | None:
        """See `Checkpoint`: these files hold plain floats."""
        return None

    def stored(self, name: str) -> Stored | None:
        """See `Checkpoint`."""
        return self._stored[name]


def _places(path: Path) -> dict[str, Stored]:
    """Where each tensor of a file lies, from its header: a length of 8 bytes, then JSON.

    The file was found to be sound before.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return {
        name: Stored(
            path, 8 + length + entry["data_offsets"][0], _FLOATS[entry["dtype"]], (*entry["shape"],)
        )
        for name, entry in header.items()
        if name != "__metadata__"
    }


def _read_index(folder: Path) -> dict[str, str]:
    """Tensor name → file name; empty for a checkpoint in a single file."""
    path = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() or not path.is_file():
        return {}
    index = read_json(path).section("weight_map").values
    if not index or not all(isinstance(name, str) for name in index.values()):
        raise CheckpointError(f"{path} has no weight_map.")
    if any(Path(name).name != name for name in index.values()):
        raise CheckpointError(f"{path} names a file outside its folder.")
    return dict(index)


def _open(path: Path, stack: ExitStack) -> Any:
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; weights are read from safetensors files.")
    try:
        return stack.enter_context(safe_open(path, framework="pt", device="cpu"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read as a safetensors file.") from error
