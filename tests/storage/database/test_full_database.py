"""SQLite where the disk is full or a quota is used up: told apart from a database that is away."""

import subprocess
import sys
from pathlib import Path

import pytest
from smalldisk import small_disk

from storage.database.connection import Database
from storage.errors import OutOfSpace
from storage.registry import models


def test_a_database_is_not_even_opened_on_a_full_disk_and_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        url = f"sqlite:///{tmp_path / 'tidemill.db'}"
        database = Database(url)
        database.migrate()
        database.close()
        disk.fill()
        database = Database(url)
        with pytest.raises(OutOfSpace):
            models.list_models(database)
        disk.free()
        assert models.list_models(database) == []
        database.close()


def test_a_size_limit_counts_as_one_too(tmp_path: Path) -> None:
    """A quota for the poor: the kernel refuses the process any file larger than this."""
    script = f"""
import resource
from storage.registry import models
from storage.database.connection import Database
from storage.errors import OutOfSpace

database = Database("sqlite:///{tmp_path / "tidemill.db"}")
database.migrate()
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
try:
    for number in range(1_000):
        models.add(database, f"model-{{number}}", "x" * 5_000)
except OutOfSpace as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(models.add(database, "afterwards", "x").name)
"""
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert "quota" in ran.stdout
    assert ran.stdout.endswith("afterwards\n")
