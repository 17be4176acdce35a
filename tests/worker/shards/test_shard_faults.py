"""Shards under faults: kills, writers that were thought dead, places that are full or denied."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from smalldisk import small_disk

from storage.database.states import JobState, OutputState
from storage.database.tables import Output
from storage.jobs.outputs import leases
from storage.jobs.outputs.views import view_outputs
from worker.run.drain import drain
from worker.shards import write
from worker.shards.manifest import MANIFEST
from worker.shards.places import Place

IDS = [f"row-{number}" for number in range(1, 11)]


class Killed(BaseException):
    """The process ended here."""


def ready(site: Any, **options: Any) -> str:
    """A job whose chunks are all done."""
    job_id: str = site.rows(site.ten, **options)
    site.bench.plan(job_id)
    drain(site.bench.worker, "smollm2")
    return job_id


def ids(site: Any) -> list[str]:
    return [row["custom_id"] for row in site.listed()]


def output(site: Any, job_id: str) -> Output:
    with site.bench.worker.database.read() as session:
        found: Output = session.get_one(Output, job_id)
        return found


def expire(site: Any) -> None:
    """Every lease on an output has run out, and no place rests any more."""
    site.bench.sql("UPDATE output SET lease_exp = 0 WHERE state = 'open'")


@contextmanager
def killed_after(
    monkeypatch: pytest.MonkeyPatch, target: str, *, before: bool = False
) -> Iterator[None]:
    """The process ends after (or before) the first call of a function."""
    module, _, name = target.rpartition(".")
    if module == "place":
        owner: Any = Place
    else:
        owner = getattr(write, module, write)
    real = getattr(owner, name)

    def dies(*args: Any, **kwargs: Any) -> None:
        if not before:
            real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, dies)
        yield


KILLS = (
    ("leases.settle_shard", True),
    ("leases.settle_shard", False),
    ("write_manifest", False),
    ("place.put", True),
    ("leases.close_output", True),
)


def test_a_writer_that_is_killed_writes_nothing_twice(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [f"part-0000{number}.parquet" for number in range(3)]
    for number, (target, before) in enumerate(KILLS):
        place = f"out-{number}"
        job_id = ready(site, place=place)
        with killed_after(monkeypatch, target, before=before), pytest.raises(Killed):
            site.finish(job_id)
        listing = site.manifest(place)["shards"] if MANIFEST in site.names(place) else []
        assert {shard["file"] for shard in listing} <= set(site.names(place))
        folder = site.folder / place
        written = {name: (folder / name).stat() for name in parts if (folder / name).exists()}
        expire(site)
        assert site.finish(job_id).state == JobState.COMPLETED
        assert [row["custom_id"] for row in site.listed(place)] == IDS
        assert site.names(place) == ["_SUCCESS", MANIFEST, *parts]
        for name, was in written.items():
            now = (folder / name).stat()
            assert (now.st_ino, now.st_mtime_ns) == (was.st_ino, was.st_mtime_ns)
        assert output(site, job_id).state == OutputState.CLOSED


def test_a_writer_that_was_thought_dead_changes_nothing(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ready(site)
    real, names = leases.settle_shard, []

    def late(*args: Any, **kwargs: Any) -> None:
        """Meanwhile another writer takes over, and ends all."""
        monkeypatch.setattr(leases, "settle_shard", real)
        expire(site)
        site.finish(job_id)
        names.extend(site.names())
        real(*args, **kwargs)

    monkeypatch.setattr(leases, "settle_shard", late)
    assert write.write_output(site.bench.worker)
    assert ids(site) == IDS
    assert site.names() == names
    assert site.manifest()["state"] == "completed"


def test_a_writer_that_was_thought_dead_gives_nothing_up(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ready(site)
    site.bench.sql(f"UPDATE output SET attempts = {write.MAX_ATTEMPTS}")
    real = leases.give_up_output

    def late(*args: Any, **kwargs: Any) -> Any:
        """Meanwhile another writer takes over, and ends all."""
        monkeypatch.setattr(leases, "give_up_output", real)
        site.bench.sql("UPDATE output SET lease_exp = 0, attempts = 0")
        site.finish(job_id)
        return real(*args, **kwargs)

    monkeypatch.setattr(leases, "give_up_output", late)
    assert write.write_output(site.bench.worker)
    assert (site.manifest()["state"], ids(site)) == ("completed", IDS)
    assert output(site, job_id).state == OutputState.CLOSED


def test_a_late_manifest_is_mended_by_who_wrote_it(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = ready(site)
    real = Place.put

    def late(place: Place, name: str, data: bytes) -> None:
        monkeypatch.setattr(Place, "put", real)
        expire(site)
        site.finish(job_id)
        real(place, name, data)
        assert site.manifest()["state"] == "running", "an old one, in place of the last"

    monkeypatch.setattr(Place, "put", late)
    assert write.write_output(site.bench.worker)
    assert (site.manifest()["state"], ids(site)) == ("completed", IDS)


def test_two_writers_share_the_outputs(site: Any) -> None:
    jobs = [ready(site, place=f"out-{number}") for number in range(2)]
    threads = [threading.Thread(target=site.write) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for number, job_id in enumerate(jobs):
        assert site.finish(job_id).state == JobState.COMPLETED
        rows = site.listed(f"out-{number}")
        assert [row["custom_id"] for row in rows] == IDS


def test_a_full_disk_is_told_and_goes_on_later(site: Any) -> None:
    site.folder.mkdir()
    with small_disk(site.folder / "out", 256 * 1024) as disk:
        job_id = ready(site)
        disk.fill()
        assert site.write() == 1
        assert [name for name in site.names() if name.startswith("part")] == []
        view = view_outputs(site.bench.worker.database, [site.bench.job(job_id)])[job_id]
        assert view.problem is not None
        assert "no space left" in view.problem["message"]
        assert site.write() == 0, "it rests for a while"
        site.bench.run_due()
        assert site.bench.job(job_id).state == JobState.FINALIZING, "it waits for its shards"
        disk.free()
        expire(site)
        assert site.finish(job_id).errors is None
        assert ids(site) == IDS


def blocked(folder: Path) -> None:
    """A file where the folder is to be."""
    folder.parent.mkdir(exist_ok=True)
    folder.write_bytes(b"x")


def taken(folder: Path) -> None:
    """A file of somebody else's by the name of a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "part-00000.parquet").write_bytes(b"x")


def test_a_place_that_refuses_for_too_long_costs_nothing_but_its_shards(
    make_site: Callable[..., Any],
) -> None:
    site = make_site(output_wait_seconds=0)
    for block, words in ((blocked, "may not write to"), (taken, "is not of this batch; move it")):
        place = block.__name__
        job_id = ready(site, place=place)
        block(site.folder / place)
        assert site.write() == 1
        assert site.bench.job(job_id).state == JobState.RUNNING, "no reason to give up yet"
        site.bench.run_due()
        expire(site)
        job = site.finish(job_id)
        assert (job.state, job.n_ok) == (JobState.COMPLETED, 10)
        assert [row["custom_id"] for row in site.bench.read(job.out_key)] == IDS
        (error,) = job.errors
        assert error["code"] == "output_not_written"
        assert words in error["message"]
        assert output(site, job_id).state == OutputState.FAILED
        assert site.write() == 0
    manifest = site.manifest("taken")
    assert (manifest["state"], manifest["shards"]) == ("incomplete", [])
    assert (site.folder / "taken" / "part-00000.parquet").read_bytes() == b"x"


def test_a_place_that_is_allowed_no_more_is_not_written(make_site: Callable[..., Any]) -> None:
    site = make_site()
    job_id = ready(site)
    elsewhere = make_site(output_uris="other:" + site.folder.as_uri())
    assert elsewhere.write() == 1
    assert site.names() == []
    expire(site)
    assert site.finish(job_id).errors is None
    assert ids(site) == IDS


def test_rows_that_are_gone_end_the_output_and_not_the_job(site: Any) -> None:
    job_id = ready(site)
    for found in list(site.bench.worker.store.list("plans/")):
        if "rows-00001" in found.key:
            site.bench.worker.store.delete(found.key)
    for _ in range(write.MAX_ATTEMPTS + 1):
        site.write()
        site.bench.run_due()
        expire(site)
    job = site.finish(job_id)
    assert (job.state, job.n_ok) == (JobState.COMPLETED, 10)
    assert [error["code"] for error in job.errors] == ["output_not_written"]
    assert ids(site) == IDS[:4], "what was written stays"
    assert site.manifest()["state"] == "incomplete"


def test_a_job_whose_plan_is_gone_fails_and_says_so_in_its_manifest(site: Any) -> None:
    job_id = site.rows(site.ten)
    site.bench.plan(job_id)
    for found in list(site.bench.worker.store.list("plans/")):
        if found.key.endswith(".arrow"):
            site.bench.worker.store.delete(found.key)
    assert site.finish(job_id).state == JobState.FAILED
    assert (site.manifest()["state"], site.manifest()["shards"]) == ("failed", [])
    assert output(site, job_id).state == OutputState.CLOSED
