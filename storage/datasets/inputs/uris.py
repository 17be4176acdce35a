"""The URIs of inputs: ``s3://bucket/key`` and ``file:///path``, of a file, a folder or a glob.

The key of an S3 object is taken as it is, whatever characters it has; the path of a file may be
percent-encoded, as ``Path.as_uri`` writes it. Neither can lead out of what it begins with.
"""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from urllib.parse import quote, unquote

from storage.errors import InputUriError

MOST_CHARACTERS = 2_048
MOST_KEY_BYTES = 1_024  # of S3 itself
MOST_STARS = 2  # ``**`` in one glob
EXPECTED = "expected s3://bucket/key or file:///path, of a file, a folder or a glob"
_SHOWN_CHARACTERS = 200
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,254}", re.ASCII)
_GLOB = re.compile(r"[*?\[]")
_UNWRITABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
_ENCODED = re.compile(r"%(2f|5c|00)", re.IGNORECASE)
# Every other ASCII character stands for itself where a path is written as a URI.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True, slots=True)
class InputUri:
    """Where an input is.

    Attributes:
        bucket: of S3; empty for a file of the service's machine.
        path: the object's key, or the file's path without its first slash. It may be a glob, and
            ends in a slash where it can only be a folder.
    """

    bucket: str
    path: str

    @classmethod
    def parse(cls, text: str) -> "InputUri":
        """Understand a URI.

        Raises:
            InputUriError: it is none, or could lead elsewhere than it says.
        """
        if len(text) > MOST_CHARACTERS:
            raise InputUriError(f"A URI of an input has at most {MOST_CHARACTERS} characters.")
        scheme, separator, rest = text.partition("://")
        bucket, _, path = rest.partition("/")
        if not separator or scheme not in ("s3", "file") or _UNWRITABLE.search(text):
            raise _refused(text, f"is no URI of an input; {EXPECTED}")
        if "@" in bucket:
            # Not shown: it may hold a password.
            raise InputUriError(
                "A URI holds no credentials; the service reads inputs with its own."
            )
        if _ENCODED.search(text):
            raise _refused(text, "has an encoded slash, backslash or zero; name the folder above")
        if scheme == "file":
            if bucket not in ("", "localhost"):
                raise _refused(text, f"names a host; {EXPECTED}")
            bucket = ""
        elif not _BUCKET.fullmatch(bucket):
            raise _refused(text, f"names no bucket; {EXPECTED}")
        found = cls.listed(f"{scheme}://{bucket}/{path}")
        path = found.path
        if any(name in (".", "..") for name in re.split(r"[/\\]", path)):
            raise _refused(text, "has '.' or '..' as the name of a folder")
        if path.startswith("/") or (not bucket and "//" in path):
            raise _refused(text, f"is no URI of an input; {EXPECTED}")
        if bucket and len(path.encode()) > MOST_KEY_BYTES:
            raise _refused(
                text, f"has a key of more than {MOST_KEY_BYTES:,} bytes, which S3 has not"
            )
        if found.pattern.count("**") > MOST_STARS:
            raise _refused(text, f"has more than {MOST_STARS} times '**'")
        return found

    @classmethod
    def listed(cls, text: str) -> "InputUri":
        """The URI of a file that was listed, whose name may be any."""
        scheme, _, rest = text.partition("://")
        bucket, _, path = rest.partition("/")
        if scheme == "file":
            path = unquote(path, errors="surrogateescape")
        return cls(bucket, path)

    def __str__(self) -> str:
        if self.bucket:
            return f"s3://{self.bucket}/{self.path}"
        return "file:///" + quote(self.path, safe=_PLAIN, errors="surrogateescape")

    @property
    def is_glob(self) -> bool:
        """Whether it has a wildcard."""
        return _GLOB.search(self.path) is not None

    @property
    def folder(self) -> str:
        """The path before the first wildcard, up to its last slash; of no glob, the whole path."""
        wild = _GLOB.search(self.path)
        return self.path if wild is None else self.path[: self.path.rfind("/", 0, wild.start()) + 1]

    @property
    def prefix(self) -> str:
        """The path before the first wildcard; of no glob, the whole path."""
        return _GLOB.split(self.path, maxsplit=1)[0]

    @property
    def pattern(self) -> tuple[str, ...]:
        """The names of a glob's folders and file, one wildcard or more among them."""
        return tuple(self.path.rstrip("/").split("/"))

    def matches(self, path: str) -> bool:
        """Whether a glob matches a path, or one of the folders that it is in."""
        return _matches(self.pattern, tuple(path.split("/")))

    def reaches(self, folder: str) -> bool:
        """Whether a glob may match something below a folder."""
        for name, pattern in zip(folder.split("/"), self.pattern, strict=False):
            if pattern == "**":
                return True
            if not fnmatchcase(name, pattern):
                return False
        return True

    def is_within(self, other: "InputUri") -> bool:
        """Whether all that this one can stand for is the other one, or lies in it as a folder."""
        folder, root = self.folder, other.path.rstrip("/")
        if self.bucket != other.bucket:
            return False
        return not root or folder == root or folder.startswith(f"{root}/")


def partitions_of(path: str) -> dict[str, str | None]:
    """The columns that the folders of a path spell as Hive does: ``dt=2026-01-01/`` is ``dt``."""
    found: dict[str, str | None] = {}
    for name in path.split("/")[:-1]:
        column, equals, value = name.partition("=")
        if equals and column:
            found[unquote(column)] = None if value == _HIVE_NULL else unquote(value)
    return found


def _matches(pattern: tuple[str, ...], names: tuple[str, ...]) -> bool:
    at = place = 0  # in the pattern, and in the names
    again: tuple[int, int] | None = None  # where to go on if the last ``**`` takes one name more
    while at < len(pattern):
        if pattern[at] == "**":
            at += 1
            again = at, place + 1
        elif place == len(names):
            return False
        elif fnmatchcase(names[place], pattern[at]):
            at, place = at + 1, place + 1
        elif again is None:
            return False
        else:
            at, place = again
            again = at, place + 1
    return True


def _refused(text: str, why: str) -> InputUriError:
    shown = text[:_SHOWN_CHARACTERS].encode(errors="replace").decode()
    return InputUriError(f"{shown!r} {why}.")
