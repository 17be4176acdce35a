"""The files that URIs stand for: in a folder of this machine, and in a bucket of a real server."""

import io
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
