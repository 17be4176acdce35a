"""Datasets where they lie: in a folder of this machine, and in a bucket of a real server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from storage.datasets.dataset_lines import Dataset, DatasetFile
from storage.datasets.inputs.allowed import AllowedUris
from storage.datasets.inputs.listing import list_files
from storage.datasets.inputs.places import InputFile, data_file
from storage.datasets.values.dataset_options import DatasetOptions
from storage.datasets.values.origins import Origins
from storage.datasets.values.sources import Kind, Limits
from storage.endpoints import CHAT_COMPLETIONS
from storage.objects.s3_client import new_client
from storage.settings import StorageSettings


class Lake:
    """Files under a prefix of its own, and what a tenant finds of them."""

    def __init__(
        self, root: str, settings: StorageSettings, put: Callable[[str, bytes], None]
    ) -> None:
        self.root, self.settings, self.put = root, settings, put

    def listed(self, *paths: str, kind: Kind | None = None) -> list[InputFile]:
        allowed = AllowedUris.of([("acme", self.root)])
        uris = [f"{self.root}/{path}" for path in paths]
        return list_files(self.settings, allowed, "acme", uris, kind)

    def names(self, *paths: str, kind: Kind | None = None) -> list[str]:
        found = [file.uri.removeprefix(f"{self.root}/") for file in self.listed(*paths, kind=kind)]
        return [name.replace("%C3%A9", "é").replace("%252F", "%2F") for name in found]

    def read(self, file: InputFile) -> bytes:
        with data_file(self.settings, file).open() as stream:
            return stream.read()

    def dataset(
        self,
        *paths: str,
        endpoint: str = CHAT_COMPLETIONS,
        limits: Limits = Limits(),
        max_lines: int = 1_000_000,
        **options: Any,
    ) -> Dataset:
        """What a batch over these paths reads."""
        said = DatasetOptions(input_uri=paths, **options)
        listed = self.listed(*paths, kind=said.format)

        def files() -> Iterator[DatasetFile]:
            for file in listed:
                content = data_file(self.settings, file)
                yield DatasetFile(file.uri, file.size, content, file.partitions)

        return Dataset(files, said, endpoint, limits, max_lines, Origins())


@pytest.fixture
def folder(tmp_path: Path) -> Lake:
    """An empty folder that the tenant may read."""

    def write(path: str, data: bytes) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)

    return Lake(tmp_path.as_uri(), StorageSettings(), write)


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.servers)])
def lake(request: pytest.FixtureRequest) -> Lake:
    """An empty folder, or an empty prefix of a bucket."""
    if request.param == "folder":
        found: Lake = request.getfixturevalue("folder")
        return found
    settings: StorageSettings = request.getfixturevalue("s3_settings")
    bucket, prefix = settings.object_store_url.removeprefix("s3://").split("/")[0], uuid4().hex
    client = new_client(settings)

    def put(path: str, data: bytes) -> None:
        client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=data)

    return Lake(f"s3://{bucket}/{prefix}", settings, put)
