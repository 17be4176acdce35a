"""Jobs whose results are written into a folder of the caller's."""

import hashlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import pytest

from storage.ids import new_id
from storage.jobs import jobs
from storage.jobs.jobs import NewJob
from storage.objects import object_keys
from storage.registry import files
from storage.registry.files import NewFile
from worker.shards.write import write_output

TEXT = "/v1/completions"
TEMPLATE = {"prompt": "{{ text }}", "max_tokens": 2, "temperature": 0}


class Site:
    """One worker, and the folder that results go to."""

    ten = tuple({"id": f"r{n}", "n": n, "text": f"w{n} x"} for n in range(10))

    def __init__(self, bench: Any, folder: Path) -> None:
        self.bench = bench
        self.folder = folder

    def create(self, data: bytes, *, place: str = "out", **options: Any) -> str:
        """A job over an uploaded file; what is not of the output is of the dataset."""
        worker, file_id = self.bench.worker, new_id("file")
        key = object_keys.upload("default", file_id)
        info = worker.store.put(key, data)
        file = files.insert(
            worker.database,
            NewFile(file_id, "default", "batch", "in", len(data), key, info.etag, ""),
        )
        uri = (self.folder / place).as_uri()
        said = {"uri": uri, "format": "parquet", "passthrough": [], **options.pop("output", {})}
        new = NewJob("default", TEXT, "24h", 86_400.0, file, options={"output": said, **options})
        return jobs.create_job(worker.database, new).job.id

    def rows(self, rows: Sequence[dict[str, Any]], **options: Any) -> str:
        """A job over lines of JSON, by `TEMPLATE`."""
        data = b"\n".join(map(orjson.dumps, rows))
        dataset = {"name": "t.jsonl", "format": "jsonl", "template": TEMPLATE}
        return self.create(data, dataset=dataset, on_invalid="skip", **options)

    def write(self) -> int:
        """Write all that is due; how often anything was."""
        count = 0
        while write_output(self.bench.worker):
            count += 1
        return count

    def finish(self, job_id: str) -> Any:
        """Run a job to its end, with its output."""
        for _ in range(100):
            self.write()
            job = self.bench.job(job_id)
            if job.completed_at or job.failed_at or job.cancelled_at or job.expired_at:
                self.write()
                return job
            self.bench.run_due()
        raise AssertionError(f"the job is still {job.state}")

    def manifest(self, place: str = "out") -> Any:
        """What the manifest says."""
        return orjson.loads((self.folder / place / "manifest.json").read_bytes())

    def listed(self, place: str = "out") -> list[dict[str, Any]]:
        """The rows of the shards that the manifest lists, in its order; each must be whole."""
        rows: list[dict[str, Any]] = []
        for shard in self.manifest(place)["shards"]:
            path = self.folder / place / shard["file"]
            data = path.read_bytes()
            digest = hashlib.sha256(data).hexdigest()
            assert (len(data), digest) == (shard["bytes"], shard["sha256"])
            if path.suffix == ".parquet":
                found = pq.read_table(io.BytesIO(data)).to_pylist()
            else:
                found = [orjson.loads(line) for line in data.splitlines()]
            assert (shard["first_row"], shard["rows"]) == (len(rows) + 1, len(found))
            rows += found
        return rows

    def names(self, place: str = "out") -> list[str]:
        """All that lies in the folder, hidden or not."""
        folder = self.folder / place
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def make_site(make_bench: Callable[..., Any], tmp_path: Path) -> Callable[..., Site]:
    folder = tmp_path / "lake"

    def make(**changes: Any) -> Site:
        settings = {"plan_window_lines": 4, "chunk_lines": 2, "output_uris": folder.as_uri()}
        return Site(make_bench(**{**settings, **changes}), folder)

    return make


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    return make_site()
