"""What a checkpoint's files say of their tensors, read from headers alone. No torch."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from engine.errors import CheckpointError, FilesUnreadable
from engine.gguf import DECODABLE, GGUFFile
from engine.models.fields import read_json

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
PLAIN_TYPES = ("BF16", "F16", "F32", "F64")
_OTHER_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.h5", "*.msgpack")


@dataclass(frozen=True, slots=True)
class TensorHeader:
    """A tensor as its file's header has it: the file, and the tensor's shape."""

    path: Path
    shape: tuple[int, ...]


def safetensors_headers(folder: Path) -> dict[str, TensorHeader]:
    """The tensors of a Hugging Face folder: of one safetensors file, or of several with an index.

    Raises:
        CheckpointError: there is none, one is missing or damaged, an index names a tensor that its
            file does not hold, or a tensor is of no plain floating type.
        FilesUnreadable: the system does not let a file be read.
    """
    index = _read_index(folder)
    found: dict[str, TensorHeader] = {}
    for path in sorted({folder / name for name in index.values()} or {folder / SINGLE_FILE}):
        with open_safetensors(path, "np") as file:
            for name in file.keys():  # noqa: SIM118, it is no mapping
                stored = file.get_slice(name)
                if stored.get_dtype() not in PLAIN_TYPES:
                    raise CheckpointError(
                        f"{path}: {name} is stored as {stored.get_dtype()}; "
                        f"known are {', '.join(PLAIN_TYPES)}."
                    )
                found[name] = TensorHeader(path, tuple(stored.get_shape()))
    lost = sorted(index.keys() - found.keys())
    if lost:
        raise CheckpointError(f"{folder / INDEX_FILE} names absent tensors: {first_of(lost)}.")
    return found


def gguf_headers(path: Path) -> dict[str, TensorHeader]:
    """The tensors of a GGUF file.

    Raises:
        CheckpointError: it is damaged, or holds a tensor of a type that cannot be decoded.
        FilesUnreadable: the system does not let it be read.
    """
    with GGUFFile(path) as file:
        strange = sorted(
            {each.type.name for each in file.tensors.values() if each.type not in DECODABLE}
        )
        if strange:
            known = ", ".join(sorted(type.name for type in DECODABLE))
            raise CheckpointError(
                f"{path} holds tensors of type {', '.join(strange)}, which cannot be decoded; "
                f"known are {known}."
            )
        return {name: TensorHeader(path, each.shape) for name, each in file.tensors.items()}


@contextmanager
def open_safetensors(path: Path, framework: str) -> Iterator[Any]:
    """A file of the safetensors library, for the ``framework`` it names ``np`` or ``pt``.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
        FilesUnreadable: the system does not let it be read.
    """
    try:
        # The library does not tell one error of the system from another.
        path.open("rb").close()
        opened = safe_open(path, framework=framework)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise CheckpointError(_missing(path)) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} cannot be read as a safetensors file: {error}. Is it a whole copy?"
        ) from error
    except OSError as error:
        raise FilesUnreadable.of(path, error) from error
    with opened as file:
        yield file


def first_of(names: list[str], most: int = 8) -> str:
    """Names for a message: the first ones, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _missing(path: Path) -> str:
    said = f"{path} is missing; weights are read from safetensors files"
    others = sorted({each.name for kind in _OTHER_WEIGHTS for each in path.parent.glob(kind)})
    if not others or path.name != SINGLE_FILE:
        return f"{said}."
    return (
        f"{said}, and the folder holds {first_of(others)}. "
        "Loading and saving the model with transformers writes them."
    )


def _read_index(folder: Path) -> Mapping[str, str]:
    """Tensor name → file name; empty for a checkpoint in a single file."""
    path = folder / INDEX_FILE
    if (folder / SINGLE_FILE).is_file() or not path.is_file():
        return {}
    index = read_json(path).section("weight_map").values
    if not index or not all(isinstance(name, str) for name in index.values()):
        raise CheckpointError(f"{path} has no weight_map.")
    if any(Path(name).name != name for name in index.values()):
        raise CheckpointError(f"{path} names a file outside its folder.")
    return index
