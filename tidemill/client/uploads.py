"""What a client uploads, and how it travels: as the last field of a form."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upload:
    """What to upload. ``chunks`` is called again whenever the upload is sent again."""

    filename: str
    chunks: Callable[[], Iterable[bytes]]

    @classmethod
    def from_path(cls, path: Path) -> Self:
        """Upload a file as it is."""
        return cls(path.name, lambda: _read(path))


def form(boundary: str, fields: Mapping[str, str], upload: Upload) -> Iterator[bytes]:
    """The body of a form (RFC 7578) whose last field is the file, as a stream."""
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        yield f"{head}{value}\r\n".encode()
    filename = upload.filename.encode(errors="replace").decode().translate(_FILENAME_ESCAPES)
    disposition = f'form-data; name="file"; filename="{filename}"'
    head = f"--{boundary}\r\nContent-Disposition: {disposition}\r\n"
    yield f"{head}Content-Type: application/octet-stream\r\n\r\n".encode()
    yield from upload.chunks()
    yield f"\r\n--{boundary}--\r\n".encode()


_FILENAME_ESCAPES = str.maketrans({'"': "%22", "\r": "%0D", "\n": "%0A"})


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            yield piece
