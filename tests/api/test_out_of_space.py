"""Uploads to a disk that fills up: refused by that name, nothing left behind, and taken later."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from smalldisk import Disk, small_disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path) as disk:
        yield disk


def test_an_upload_to_a_full_disk(disk: Disk, serve_with: Callable[..., Any]) -> None:
    service = serve_with()
    client = service.openai()
    client.files.create(file=("first", b"x"), purpose="batch")
    disk.fill(leave=1_000_000)
    with pytest.raises(openai.APIStatusError) as caught:
        client.files.create(file=("large", b"x" * 4_000_000), purpose="batch")
    assert caught.value.status_code == 507
    assert "out of storage space" in caught.value.message
    assert not list((service.settings.storage.home / "objects" / ".staging").iterdir())
    assert [file.filename for file in client.files.list()] == ["first"], "reading goes on"
    disk.free()
    made = client.files.create(file=("large", b"x" * 4_000_000), purpose="batch")
    assert made.bytes == 4_000_000


def test_a_batch_on_a_full_disk(disk: Disk, serve_with: Callable[..., Any]) -> None:
    """The database cannot grow: what cannot be kept is never answered with a batch."""
    service = serve_with()
    client = service.openai()
    file = client.files.create(file=("in", b"{}"), purpose="batch")
    disk.fill(leave=500_000)
    made: list[Any] = []
    with pytest.raises(openai.APIStatusError) as caught:
        made += _batches(client, file.id)
    assert caught.value.status_code == 507
    disk.free()
    assert made
    assert {batch.id for batch in made} <= {batch.id for batch in client.batches.list(limit=100)}
    assert next(iter(_batches(client, file.id))).status == "validating"


def _batches(client: openai.OpenAI, file_id: str) -> Iterator[Any]:
    """Batches with as much metadata as is allowed: half a megabyte holds a few."""
    metadata = {f"key{number}": "x" * 512 for number in range(16)}
    for _ in range(2_000):
        yield client.batches.create(
            input_file_id=file_id,
            endpoint="/v1/chat/completions",
            completion_window="24h",
            metadata=metadata,
        )
