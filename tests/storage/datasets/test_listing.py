"""The files that URIs stand for: in a folder of this machine, and in a bucket of a real server."""

import io
import os
import resource
import socket
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pydantic import SecretStr

from storage.datasets.inputs import listing, places
from storage.datasets.inputs.allowed import AllowedUris
from storage.datasets.inputs.listing import list_files
from storage.datasets.inputs.places import InputFile, Place, data_file
from storage.datasets.inputs.snapshots import read_snapshot, write_snapshot
from storage.datasets.inputs.uris import InputUri
from storage.datasets.values.sources import Kind
from storage.errors import DamagedData, InputModified, InputUriError, ObjectStoreUnavailable
from storage.objects.local import LocalStore
from storage.settings import StorageSettings

KEYS = [
    "t/a.csv",
    "t/b.csv",
    "t/_SUCCESS",
    "t/_temporary/0/x.csv",
    "t/.a.csv.crc",
    "t/b.csv.crc",
    "t/.hidden/x.csv",
    "t/dt=2026-01-01/c d:é+%2F.csv",
    "t/_day=2/e.csv",
    "tt/other.csv",
]
DATA = ["t/_day=2/e.csv", "t/a.csv", "t/b.csv", "t/dt=2026-01-01/c d:é+%2F.csv"]


@pytest.fixture
def filled(lake: Any) -> Any:
    for key in KEYS:
        lake.put(key, key.encode())
    return lake


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["t"], DATA),
        (["t/"], DATA),
        (["t/a.csv"], ["t/a.csv"]),
        (["t/_SUCCESS"], ["t/_SUCCESS"]),
        (["t/*.csv"], ["t/a.csv", "t/b.csv"]),
        (["t/dt=*/"], ["t/dt=2026-01-01/c d:é+%2F.csv"]),
        (["t/**/*.csv"], DATA),
        (["t/[b]*", "t/a.csv", "t"], ["t/b.csv", "t/a.csv", DATA[0], DATA[3]]),
        (["tt"], ["tt/other.csv"]),
        (["t", "t/a.csv", "t/dt=*/", "t"], DATA),
        (["tt/other.csv", "tt/other.csv"], ["tt/other.csv"]),
    ],
)
def test_a_uri_is_a_file_a_folder_or_a_glob(
    filled: Any, paths: list[str], names: list[str]
) -> None:
    kind = Kind.CSV if "t/_SUCCESS" in paths else None
    assert filled.names(*paths, kind=kind) == names
    for file, name in zip(filled.listed(*paths, kind=kind), names, strict=True):
        assert filled.read(file) == name.encode()
        assert file.size == len(name.encode())


def test_the_names_of_folders_are_columns(filled: Any) -> None:
    (file,) = filled.listed("t/dt=*/")
    assert file.partitions == {"dt": "2026-01-01"}


@pytest.mark.parametrize(
    "path", ["nothing", "t/nothing.csv", "t/*.parquet", "t/.hidden", "nothing/"]
)
def test_where_there_is_nothing_it_is_said(filled: Any, path: str) -> None:
    if path == "t/.hidden":  # named itself, it is no hidden folder
        assert filled.names(path) == ["t/.hidden/x.csv"]
        return
    with pytest.raises(InputUriError, match=path.rstrip("/").replace("*", r"\*")) as caught:
        filled.listed(path)
    assert caught.value.code == "input_not_found"


@pytest.mark.parametrize("path", ["t/", "t", "t/*/", "t*/"])
def test_the_marker_of_a_folder_is_no_file(path: str) -> None:
    """Consoles of S3 make an empty object for a folder, whose key ends in a slash."""
    keys = ["t/", "t/sub/", "t/sub/a.csv"]
    found = (Place(key, 0 if key.endswith("/") else 1, "tag") for key in keys)
    chosen = listing._chosen(found, InputUri("bucket", path), count(1))
    assert [place.path for place in chosen] == ["t/sub/a.csv"]


def test_files_of_two_kinds_are_refused_by_name(lake: Any) -> None:
    for name in ("a.csv", "b.parquet", "c"):
        lake.put(f"t/{name}", b"x")
    with pytest.raises(InputUriError, match=r"a\.csv' is csv .*b\.parquet' is parquet") as caught:
        lake.listed("t")
    assert caught.value.code == "input_kinds_differ"
    with pytest.raises(InputUriError, match=r"b\.parquet' is parquet .*c' has no suffix"):
        lake.listed("t/[bc]*")
    assert lake.names("t", kind=Kind.TEXT) == ["t/a.csv", "t/b.parquet", "t/c"]


def test_too_many_files_are_refused(filled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "MOST_FILES", 3)
    with pytest.raises(InputUriError, match="more than 3 files") as caught:
        filled.listed("t")
    assert caught.value.code == "too_many_input_files"


def test_what_is_looked_at_is_counted_over_all_uris(
    filled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "MOST_LISTED", 3)
    assert filled.names("t/a.csv", "t/b.csv", "t/a.csv", "tt", "tt") == KEYS[:2] + KEYS[-1:]
    with pytest.raises(InputUriError, match=r"More than 3 files .*t/dt=\*/'") as caught:
        filled.listed("t/a.csv", "t/b.csv", "tt", "t/dt=*/")
    assert caught.value.code == "too_many_input_files"


def test_a_file_that_changes_is_named(filled: Any) -> None:
    changed, kept = filled.listed("t/[ab].csv")
    filled.put("t/a.csv", b"other")
    with pytest.raises(InputModified, match=r"t/a\.csv' was changed or deleted"):
        filled.read(changed)
    with pytest.raises(InputModified, match=r"t/a\.csv' was changed or deleted"):
        data_file(filled.settings, changed).arrow().read()
    assert filled.read(kept) == b"t/b.csv"


def test_a_snapshot_is_read_as_it_was_written(filled: Any, tmp_path: Path) -> None:
    files = filled.listed("t")
    store = LocalStore(tmp_path / "objects")
    with store.writer("snapshot") as writer:
        write_snapshot(writer, [f"{filled.root}/t"], files)
    with store.reader("snapshot") as stream:
        data = stream.read()
    assert list(read_snapshot(io.BytesIO(data))) == files
    lines = data.splitlines(keepends=True)
    for broken in (b"", b"{}\n", b"".join(lines[:-1]), b"".join([*lines, b"{}\n"]), lines[1]):
        with pytest.raises(DamagedData):
            list(read_snapshot(io.BytesIO(broken)))


def test_links_that_lead_out_of_the_folder_are_refused(folder: Any, tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    for made in (inside / "t", inside / "u", outside):
        made.mkdir(parents=True)
        (made / "a.csv").write_text("a\n1\n")
    lake = type(folder)(inside.as_uri(), StorageSettings(), lambda path, data: None)
    (inside / "t" / "b.csv").symlink_to(inside / "t" / "a.csv")
    assert lake.names("t") == ["t/a.csv", "t/b.csv"]
    (inside / "u" / "b.csv").symlink_to(outside / "a.csv")
    (inside / "folder").symlink_to(outside)
    (inside / "v").mkdir()
    (inside / "v" / "folder").symlink_to(outside)
    for path in ("u", "u/b.csv", "u/*", "folder", "folder/a.csv", "folder/*", "v"):
        with pytest.raises(InputUriError, match="leads elsewhere") as caught:
            lake.listed(path)
        assert caught.value.code == "input_uri_not_allowed"


@pytest.mark.parametrize("path", ["", "t", "t/*.csv", "**/*.csv"])
def test_what_is_passed_over_does_no_harm(folder: Any, tmp_path: Path, path: str) -> None:
    folder.put("t/a.csv", b"a\n1\n")
    odd = tmp_path / "t"
    (odd / ".#notes.csv").symlink_to("nobody@nowhere")
    (odd / ".out").symlink_to("/")
    (odd / "_out").symlink_to("/")
    os.mkfifo(odd / "_pipe.csv")
    (odd / "sub").symlink_to(odd)
    (odd / "lost+found").mkdir()
    (odd / "lost+found" / "gone.csv").symlink_to("nothing")
    (odd / ".hidden").mkdir()
    os.mkfifo(odd / ".hidden" / "pipe.csv")
    if "*" in path:
        (odd / "gone").symlink_to("nothing")
        os.mkfifo(odd / "pipe")
    if path == "t/*.csv":
        (odd / "out").symlink_to("/")
        (odd / "in").mkdir()
        os.mkfifo(odd / "in" / "pipe.csv")
    assert folder.names(path) == ["t/a.csv"]


def test_a_link_to_nothing_is_named(folder: Any, tmp_path: Path) -> None:
    folder.put("t/a.csv", b"a\n1\n")
    (tmp_path / "t" / "b.csv").symlink_to("nothing")
    with pytest.raises(InputUriError, match=r"nothing at .*/t/b\.csv'") as caught:
        folder.listed("t")
    assert caught.value.code == "input_not_found"


def test_what_is_no_regular_file_is_refused(folder: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(InputUriError, match="no regular file"):
        folder.listed("")


@pytest.mark.parametrize("made", ["nothing", "pipe", "folder", "socket", "loop", "below a file"])
def test_a_name_that_became_that_of_something_else_is_a_change(
    folder: Any, tmp_path: Path, made: str
) -> None:
    folder.put("t/a.csv", b"a\n1\n")
    (file,) = folder.listed("t")
    path = tmp_path / "t" / "a.csv"
    path.unlink()
    if made == "pipe":
        os.mkfifo(path)
    elif made == "folder":
        path.mkdir()
    elif made == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif made == "loop":
        path.symlink_to(path)
    elif made == "below a file":
        path.parent.rmdir()
        path.parent.touch()
    with pytest.raises(InputModified, match=r"t/a\.csv' was changed or deleted"):
        folder.read(file)


def test_a_file_that_cannot_be_opened_now_was_not_changed(folder: Any) -> None:
    folder.put("a.csv", b"a\n1\n")
    (file,) = folder.listed("")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(ObjectStoreUnavailable, match=r"a\.csv' cannot be read now") as caught:
            folder.read(file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.retryable
    assert folder.read(file) == b"a\n1\n"


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (400, "KeyTooLongError", InputUriError),
        (400, "InvalidArgument", InputUriError),
        (403, "InvalidObjectState", InputUriError),
        (503, "ServiceUnavailable", ObjectStoreUnavailable),
    ],
)
def test_what_a_store_refuses_to_list_is_an_error_of_the_uri(
    status: int, code: str, raised: type[Exception]
) -> None:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    with (
        pytest.raises(raised, match=f"s3://bucket/a: the object store answered {status} {code}"),
        places._named(InputUri("bucket", "a")),
    ):
        raise ClientError(answer, "ListObjectsV2")


@pytest.mark.servers
class TestOnServer:
    def list(self, settings: StorageSettings, uri: str) -> list[InputFile]:
        return list_files(settings, AllowedUris.of([("acme", uri)]), "acme", [uri])

    def test_a_bucket_that_is_not_there(self, s3_settings: StorageSettings) -> None:
        with pytest.raises(InputUriError, match="no bucket 'missing'") as caught:
            self.list(s3_settings, "s3://missing/a")
        assert caught.value.code == "input_not_found"

    def test_a_glob_lists_no_more_than_what_begins_as_it_does(
        self, filled: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if not filled.root.startswith("s3:"):
            return
        monkeypatch.setattr(listing, "MOST_LISTED", 2)
        assert filled.names("t/b*") == ["t/b.csv"]  # and its marker
        with pytest.raises(InputUriError, match="More than 2 files"):
            filled.names("t/*")

    def test_credentials_without_the_right(self, s3_settings: StorageSettings) -> None:
        wrong = s3_settings.model_copy(update={"s3_secret_access_key": SecretStr("wrong")})
        uri = s3_settings.object_store_url
        with pytest.raises(InputUriError, match="may not read") as caught:
            self.list(wrong, uri)
        assert caught.value.code == "input_access_denied"
        assert "wrong" not in str(caught.value)

    def test_a_file_that_may_not_be_read_any_more(
        self, filled: Any, s3_settings: StorageSettings
    ) -> None:
        """The right to list is not the right to read, and rights may be withdrawn."""
        wrong = s3_settings.model_copy(update={"s3_secret_access_key": SecretStr("wrong")})
        (file,) = filled.listed("t/a.csv")
        if not file.uri.startswith("s3:"):
            return
        with pytest.raises(InputUriError, match=r"may not read .*t/a\.csv") as caught:
            data_file(wrong, file).arrow().read()
        assert caught.value.code == "input_access_denied"


def test_names_of_any_bytes_are_read(folder: Any, tmp_path: Path) -> None:
    name = os.fsdecode(b"d\xff=caf\xe9")
    (tmp_path / name).mkdir()
    (tmp_path / name / os.fsdecode(b"\xfe %.csv")).write_bytes(b"data")
    (file,) = folder.listed("")
    assert file.uri == f"{folder.root}/d%FF=caf%E9/%FE %25.csv"
    assert file.partitions == {"d\ufffd": "caf\ufffd"}
    assert folder.read(file) == b"data"
