"""A checkpoint's tensors by name, whichever files they lie in."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import Tensor

from engine.errors import CheckpointError, FilesUnreadable
from engine.gguf import GGUFFile, dequantize, has_groups, read_groups
from engine.kernels.grouped import GroupedWeight
from engine.models.headers import open_safetensors, safetensors_headers
from engine.models.staged import Stored

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
        CheckpointError, FilesUnreadable: as `safetensors_headers`.
    """

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.source = str(folder)
        headers = safetensors_headers(folder)
        self.shapes = {name: header.shape for name, header in headers.items()}
        paths = {header.path for header in headers.values()}
        files = {path: stack.enter_context(open_safetensors(path, "pt")) for path in paths}
        self._files: dict[str, Any] = {name: files[each.path] for name, each in headers.items()}
        self._stored: dict[str, Stored] = {}
        for path in paths:
            self._stored |= _places(path)

    def read(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        try:
            tensor: Tensor = self._files[name].get_tensor(name)
        except SafetensorError as error:
            raise CheckpointError(f"{self.source}: {name} cannot be read.") from error
        except OSError as error:
            raise FilesUnreadable.of(f"{self.source}: {name}", error) from error
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
