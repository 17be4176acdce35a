"""Places that results are written to: folders, and prefixes of a bucket of a real server."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from storage.datasets.outputs.places import OutputPlaces, canonical, check_new_place, tidy
from storage.errors import ConfigurationError, ObjectExists, OutputError
from storage.settings import Settings


def test_a_place_is_empty_and_can_be_written(lake: Any) -> None:
    places = OutputPlaces.of([("acme", lake.root)])
    store = places.open(lake.settings, "acme", f"{lake.root}/out/deep")
    check_new_place(store, "it")
    assert list(store.list("")) == []
    with store.writer("part-0", if_absent=True) as writer:
        writer.write(b"x" * (6 << 20))
    again = places.open(lake.settings, "acme", f"{lake.root}/out/deep/")
    again.put("part-0", b"x" * (6 << 20), if_absent=True)
    with pytest.raises(ObjectExists):
        again.put("part-0", b"y", if_absent=True)
    store.put("manifest.json", b"1")
    store.put("manifest.json", b"2")
    with store.reader("manifest.json") as stream:
        assert stream.read() == b"2"
    tidy(store)
    assert [found.key for found in store.list("")] == ["manifest.json", "part-0"]
    with pytest.raises(OutputError) as caught:
        check_new_place(store, "it")
    assert caught.value.code == "output_not_empty"


def test_a_write_that_breaks_off_is_never_seen(lake: Any) -> None:
    store = OutputPlaces.of([("acme", lake.root)]).open(lake.settings, "acme", f"{lake.root}/out")
    with suppress(ZeroDivisionError), store.writer("part-0", if_absent=True) as writer:
        writer.write(b"x" * (6 << 20))
        raise ZeroDivisionError
    assert list(store.list("")) == []
    check_new_place(store, "it")


def test_what_is_being_written_outlives_every_check(lake: Any) -> None:
    places = OutputPlaces.of([("acme", lake.root)])
    outer, inner = (places.open(lake.settings, "acme", lake.root + path) for path in ("/o", "/o/i"))
    with inner.writer("part-00000.parquet", if_absent=True) as writer:
        writer.write(b"x" * (6 << 20))
        check_new_place(inner, "it")
        with suppress(OutputError):  # a folder within is something in it, and an upload is not
            check_new_place(outer, "it")
        tidy(outer)
    assert inner.head("part-00000.parquet").size == 6 << 20


def test_what_checks_have_left_is_nothing(lake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    store = OutputPlaces.of([("acme", lake.root)]).open(lake.settings, "acme", f"{lake.root}/out")
    left = f"_probe-{'0' * 32}"
    store.put(left, b"probe\n")
    check_new_place(store, "it")
    assert [found.key for found in store.list("")] == [left], "another check may be at it"
    later = time.time() + 7200
    monkeypatch.setattr("storage.datasets.outputs.places.time.time", lambda: later)
    check_new_place(store, "it")
    assert list(store.list("")) == []
    store.put("_probe-mine", b"data")
    with pytest.raises(OutputError):
        check_new_place(store, "it")


@pytest.mark.servers
def test_a_bucket_that_is_not_there_or_not_ours_is_told(s3_settings: Any) -> None:
    places = OutputPlaces.of([("acme", "s3://nowhere/x")])
    with pytest.raises(OutputError, match="no bucket") as caught:
        check_new_place(places.open(s3_settings, "acme", "s3://nowhere/x/y"), "s3://nowhere/x/y")
    assert caught.value.code == "output_not_writable"
    denied = s3_settings.model_copy(update={"s3_access_key_id": "nobody"})
    with pytest.raises(OutputError, match="may not write") as caught:
        check_new_place(places.open(denied, "acme", "s3://nowhere/x/y"), "it")
    assert caught.value.code == "output_not_writable"


def test_each_tenant_has_its_own(tmp_path: Path) -> None:
    settings = Settings.load(output_uris=f"acme:{tmp_path.as_uri()}/a, file:///b").api
    places = OutputPlaces.of(settings.output_prefixes)
    storage = Settings.load().storage
    assert places.open(storage, "acme", f"{tmp_path.as_uri()}/a/x")
    for tenant, uri in (("default", f"{tmp_path.as_uri()}/a/x"), ("acme", "file:///b")):
        with pytest.raises(OutputError) as caught:
            places.open(storage, tenant, uri)
        assert caught.value.code == "output_uri_not_allowed"
    with pytest.raises(OutputError, match="TIDEMILL_OUTPUT_URIS"):
        OutputPlaces.of([]).open(storage, "acme", "file:///b")
    with pytest.raises(ConfigurationError, match="TIDEMILL_OUTPUT_URIS"):
        OutputPlaces.of([("acme", "s3://bucket/*/x")])


@pytest.mark.parametrize("path", ["", "/home", "/home/objects/x"])
def test_no_place_is_among_what_the_service_keeps(tmp_path: Path, path: str) -> None:
    storage = Settings.load(home=tmp_path / "home", env_file=None).storage
    with pytest.raises(ConfigurationError, match="TIDEMILL_OUTPUT_URIS"):
        OutputPlaces.of([("acme", tmp_path.as_uri() + path)]).check_apart(storage)
    OutputPlaces.of([("acme", f"{tmp_path.as_uri()}/beside")]).check_apart(storage)


def test_a_place_has_one_spelling() -> None:
    spelled = ("file:///a/b", "file:///a/b/", "file://localhost/a/b", "file:///%61/b")
    assert {canonical(uri) for uri in spelled} == {"file:///a/b/"}
