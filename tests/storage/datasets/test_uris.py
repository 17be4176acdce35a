"""URIs of inputs: what they stand for, and that none leads out of what a tenant may read."""

from itertools import count
from pathlib import Path

import pytest

from storage.datasets.inputs import uris
from storage.datasets.inputs.allowed import NOT_ALLOWED, AllowedUris
from storage.datasets.inputs.uris import InputUri, partitions_of
from storage.errors import ConfigurationError, InputUriError
from storage.settings import StorageSettings


@pytest.mark.parametrize(
    ("text", "bucket", "path", "folder"),
    [
        ("s3://b1/in/a.parquet", "b1", "in/a.parquet", "in/a.parquet"),
        ("s3://b1/in/", "b1", "in/", "in/"),
        ("s3://b1", "b1", "", ""),
        ("s3://b1/a b/ä:%2B=c.csv", "b1", "a b/ä:%2B=c.csv", "a b/ä:%2B=c.csv"),
        ("s3://b1/in/dt=*/x[0-9].csv", "b1", "in/dt=*/x[0-9].csv", "in/"),
        ("s3://b1/*.csv", "b1", "*.csv", ""),
        ("file:///data/a%20b.csv", "", "data/a b.csv", "data/a b.csv"),
        ("file://localhost/data/**/x", "", "data/**/x", "data/"),
    ],
)
def test_a_uri_has_a_bucket_and_a_path(text: str, bucket: str, path: str, folder: str) -> None:
    uri = InputUri.parse(text)
    assert (uri.bucket, uri.path, uri.folder) == (bucket, path, folder)
    assert InputUri.parse(str(uri)) == uri
    assert InputUri.listed(str(uri)) == uri


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no URI"),
        ("in/a.parquet", "no URI"),
        ("gs://bucket/a", "no URI"),
        ("s3:/bucket/a", "no URI"),
        ("s3://", "no bucket"),
        ("s3:///a", "no bucket"),
        ("s3://b/a", "no bucket"),
        ("s3://b*/a", "no bucket"),
        ("s3://bu cket/a", "no bucket"),
        ("s3://bucket:9000/a", "no bucket"),
        ("s3://bucket/a/../b", "'..'"),
        ("s3://bucket/..", "'..'"),
        ("s3://bucket/./a", "'.'"),
        ("s3://bucket/a\\..\\b", "'..'"),
        ("s3://bucket/a%2Fb", "encoded"),
        ("s3://bucket/a%2f..%2fb", "encoded"),
        ("s3://bucket/a%5cb", "encoded"),
        ("s3://bucket/a%00", "encoded"),
        ("s3://bucket/a\0b", "no URI"),
        ("s3://bucket/a\nb", "no URI"),
        ("s3://bucket/\ud800", "no URI"),
        ("s3://bucket//a", "no URI"),
        ("s3://bucket/" + "x" * 3_000, "2048 characters"),
        ("s3://bucket/" + "x" * 1_025, "1,024 bytes"),
        ("s3://bucket/" + "ä" * 513, "1,024 bytes"),
        ("s3://bucket/" + "ä" * 513 + "*", "1,024 bytes"),
        ("s3://bucket/**/**/**/x", "2 times"),
        ("file:///data/../etc/passwd", "'..'"),
        ("file:///data/%2e%2e/etc/passwd", "'..'"),
        ("file:///data%2f..%2fetc", "encoded"),
        ("file:///data//etc", "no URI"),
        ("file:////etc", "no URI"),
        ("file://host/data", "names a host"),
        ("file://../etc", "names a host"),
    ],
)
def test_what_is_none_or_could_lead_elsewhere_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InputUriError, match=reason.replace(".", r"\.")) as caught:
        InputUri.parse(text)
    assert caught.value.code == "invalid_input_uri"


@pytest.mark.parametrize("path", ["x" * 1_024, "ä" * 512])
def test_a_key_may_be_as_long_as_those_of_s3(path: str) -> None:
    assert InputUri.parse(f"s3://bucket/{path}").path == path
    assert InputUri.parse(f"file:///{path}x").path == f"{path}x"


def test_credentials_in_a_uri_are_refused_and_not_repeated() -> None:
    with pytest.raises(InputUriError, match="no credentials") as caught:
        InputUri.parse("s3://AKIA123:secret@bucket/a")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "path", "matched"),
    [
        ("in/*.csv", "in/a.csv", True),
        ("in/*.csv", "in/a.csv.gz", False),
        ("in/*.csv", "in/sub/a.csv", False),
        ("in/*", "in/sub/a.csv", True),
        ("in/dt=2026-*/", "in/dt=2026-01/a.csv", True),
        ("in/dt=2026-*/", "in/dt=2025-01/a.csv", False),
        ("in/**/a.csv", "in/a.csv", True),
        ("in/**/a.csv", "in/x/y/a.csv", True),
        ("in/**/a.csv", "in/x/y/b.csv", False),
        ("in/?[ab].csv", "in/xb.csv", True),
        ("in/?[ab].csv", "in/xc.csv", False),
        ("in/*a*a*a*a*a*a*a*a*b", "in/" + "a" * 900, False),
        ("in/**", "in/x", True),
        ("**", "in", True),
        ("in/**/x/*/y", "in/x/x/1/x/2/y", True),
        ("in/**/x/**/y", "in/a/x/b/c/y/d", True),
        ("in/**/x/**/y", "in/a/y/b/c/x/d", False),
        ("in/**/a/b/", "in/a/a/b/c.csv", True),
        ("a/" * 1_000 + "*", "a/" * 1_000 + "b", True),
        ("a/" * 1_000 + "*", "a/" * 999 + "b", False),
    ],
)
def test_a_glob_matches_files_and_the_folders_they_are_in(
    pattern: str, path: str, matched: bool
) -> None:
    assert InputUri("bucket", pattern).matches(path) is matched


def test_the_work_of_a_glob_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However its names repeat: at most the product of both lengths."""
    compared = count(1)

    def matched(name: str, pattern: str) -> bool:
        assert next(compared) <= 80 * 62
        return name == pattern

    monkeypatch.setattr(uris, "fnmatchcase", matched)
    assert not InputUri("b", "**/" + "a/" * 30 + "**/" + "a/" * 30 + "b").matches("a/" * 80 + "c")


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://mine/team/a", True),
        ("s3://mine/team/a/", True),
        ("s3://mine/team/a/b/c.csv", True),
        ("s3://mine/team/a/*.csv", True),
        ("s3://whole", True),
        ("s3://whole/any/*", True),
        ("file:///data/x.csv", True),
        ("s3://mine/team/ab", False),
        ("s3://mine/team/a*", False),
        ("s3://mine/team/*/x.csv", False),
        ("s3://mine/team", False),
        ("s3://mine", False),
        ("s3://mine/*", False),
        ("s3://other/team/a/x", False),
        ("s3://theirs/x", False),
        ("file:///data2/x", False),
        ("file:///team/a/x", False),
        ("file:///*/x", False),
    ],
)
def test_a_tenant_reads_in_its_own_prefixes_alone(uri: str, allowed: bool) -> None:
    prefixes = [
        ("acme", "s3://mine/team/a"),
        ("acme", "s3://whole"),
        ("acme", "file:///data/"),
        ("other", "s3://theirs"),
    ]
    known = AllowedUris.of(prefixes)
    if allowed:
        known.root_of("acme", InputUri.parse(uri))
        return
    with pytest.raises(InputUriError, match="TIDEMILL_DATASET_URIS") as caught:
        known.root_of("acme", InputUri.parse(uri))
    assert caught.value.code == NOT_ALLOWED


def test_without_any_prefix_the_setting_is_named() -> None:
    with pytest.raises(InputUriError, match=r"TIDEMILL_DATASET_URIS=s3://bucket/prefix"):
        AllowedUris.of([]).root_of("acme", InputUri.parse("s3://mine/a"))


@pytest.mark.parametrize("uri", ["s3://mine/*", "s3://mine/..", "s3://"])
def test_a_prefix_that_is_none_is_refused(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="TIDEMILL_DATASET_URIS"):
        AllowedUris.of([("acme", uri)])


def test_folders_spell_columns_as_hive_does() -> None:
    path = "t/dt=2026-01-01/city=S%C3%A3o%20Paulo/empty=__HIVE_DEFAULT_PARTITION__/=x/a=b.parquet"
    assert partitions_of(path) == {"dt": "2026-01-01", "city": "São Paulo", "empty": None}


@pytest.mark.parametrize(
    ("store", "prefix", "apart"),
    [
        ("s3://own/runs", "s3://own/lake", True),
        ("s3://own/runs", "s3://own/run", True),
        ("s3://own/runs", "s3://other", True),
        ("s3://own/runs", "s3://own", False),
        ("s3://own/runs", "s3://own/runs", False),
        ("s3://own/runs", "s3://own/runs/files/acme", False),
        ("s3://own", "s3://own/lake", False),
        ("", "{home}/lake", True),
        ("", "{home}", False),
        ("", "{home}/objects/files", False),
        ("", "{home}/..linked", False),
        ("s3://own/runs", "file:///", False),
    ],
)
def test_what_the_service_itself_keeps_is_for_no_tenant(
    tmp_path: Path, store: str, prefix: str, apart: bool
) -> None:
    """Other tenants' uploads and results are there, and the database."""
    home = tmp_path / "home"
    (home / "objects" / "files").mkdir(parents=True)
    (home / "..linked").symlink_to(home / "objects")
    settings = StorageSettings(home=home, object_store_url=store)
    allowed = AllowedUris.of([("acme", prefix.format(home=home.as_uri()))])
    if apart:
        allowed.check_apart(settings)
        return
    with pytest.raises(ConfigurationError, match=r"TIDEMILL_DATASET_URIS.*itself keeps"):
        allowed.check_apart(settings)
