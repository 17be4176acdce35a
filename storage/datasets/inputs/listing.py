"""The files that an input's URIs stand for, in their order, all of one kind."""

from collections.abc import Iterator, Sequence
from itertools import count

from storage.datasets.inputs.allowed import AllowedUris
from storage.datasets.inputs.places import NOT_FOUND, InputFile, Place, data_file, find, is_hidden
from storage.datasets.inputs.uris import InputUri, partitions_of
from storage.datasets.readers.kinds import kind_named
from storage.datasets.values.sources import Kind, shown
from storage.errors import InputUriError
from storage.settings import StorageSettings

MOST_FILES = 100_000
MOST_LISTED = 200_000  # of which globs choose
TOO_MANY = "too_many_input_files"
KINDS_DIFFER = "input_kinds_differ"
_MARKERS = (".crc", "_$folder$")  # of Hadoop


def list_files(
    settings: StorageSettings,
    allowed: AllowedUris,
    tenant: str,
    uris: Sequence[str],
    kind: Kind | None = None,
) -> list[InputFile]:
    """All files, those of one URI by their names; a file that is named twice comes once.

    Passed over are files and folders whose names begin with a dot, or with an underscore and spell
    no partition, and the markers of Hadoop; in a file system also links to other folders that may
    be read, and ``lost+found``. A file that is named itself is never passed over.

    Args:
        kind: what all of them are, where the user says so; else their names must agree.

    Raises:
        InputUriError: a URI is wrong, or not allowed; there is nothing, or nothing that may be
            read; there are too many files, or files of different kinds.
        ObjectStoreUnavailable: the store cannot be reached.
    """
    parsed = list(dict.fromkeys(InputUri.parse(uri) for uri in uris))
    roots = [allowed.root_of(tenant, uri) for uri in parsed]  # all, before anything is looked at
    found: dict[str, InputFile] = {}
    listed = count(1)  # of all URIs together
    for uri, root in zip(parsed, roots, strict=True):
        places = find(settings, uri, root)
        chosen = sorted(_chosen(places, uri, listed), key=lambda place: place.path)
        if not chosen:
            raise InputUriError(f"There is no file at '{uri}'.", NOT_FOUND)
        for place in chosen:
            name = str(InputUri(uri.bucket, place.path))
            found[name] = InputFile(name, place.size, place.etag, partitions_of(shown(place.path)))
        if len(found) > MOST_FILES:
            raise _too_many(uri)
    files = list(found.values())
    # The right to list is not the right to read; who lacks it is told now.
    with data_file(settings, files[0]).open() as stream:
        stream.read(1)
    if kind is None:
        _check_kinds(files)
    return files


def _chosen(places: Iterator[Place], uri: InputUri, listed: Iterator[int]) -> Iterator[Place]:
    chosen = 0
    for place in places:
        if next(listed) > MOST_LISTED:
            raise InputUriError(
                f"More than {MOST_LISTED:,} files would be looked at with those of '{uri}'; name "
                "fewer folders, or longer beginnings of globs.",
                TOO_MANY,
            )
        named = place.path == uri.path and not place.path.endswith("/")  # no marker of a folder
        if named or (_is_data(place.path, uri) and _matches(place.path, uri)):
            chosen += 1
            if chosen > MOST_FILES:
                raise _too_many(uri)
            yield place


def _too_many(uri: InputUri) -> InputUriError:
    return InputUriError(
        f"There are more than {MOST_FILES:,} files with those of '{uri}'; name fewer, or make "
        "larger ones of them.",
        TOO_MANY,
    )


def _matches(path: str, uri: InputUri) -> bool:
    return not uri.is_glob or uri.matches(path)


def _is_data(path: str, uri: InputUri) -> bool:
    names = path[len(uri.folder) :].lstrip("/").split("/")
    return not any(map(is_hidden, names)) and bool(names[-1]) and not path.endswith(_MARKERS)


def _check_kinds(files: Sequence[InputFile]) -> None:
    first = files[0]
    kind = kind_named(first.uri)
    for file in files:
        other = kind_named(file.uri)
        if other is not kind:
            raise InputUriError(
                f"An input is of one kind, and '{first.uri}' {_named(kind)} while '{file.uri}' "
                f"{_named(other)}; name the files by a glob such as '*.parquet', or say "
                "tidemill.input_format.",
                KINDS_DIFFER,
            )


def _named(kind: Kind | None) -> str:
    return "has no suffix that says what it is" if kind is None else f"is {kind.value} by its name"
