"""The library of kernels in C: built once a machine, and missed with one warning."""

import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine import LLM, SamplingParams
from engine.kernels.native import build, library
from native import needs_kernels


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What this process knows of the library is forgotten, before and after."""
    library.library.cache_clear()
    build.build.cache_clear()
    yield
    library.library.cache_clear()
    build.build.cache_clear()


def test_without_a_compiler_it_warns_once_and_the_reference_serves(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", "")
    with caplog.at_level(logging.WARNING):
        assert not library.available()
        assert not library.available()
    assert len(caplog.records) == 1
    assert "no C compiler" in caplog.text


@pytest.mark.slow
def test_without_a_compiler_an_engine_runs_on_the_reference(
    forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    llm = LLM("smollm2", device="cpu", kv_cache_bytes=50 * 2**20)
    assert llm.info.kernels == "reference"
    assert llm.info.quantization == "none"
    assert "could not be built" in llm.info.description
    params = SamplingParams(temperature=0, max_tokens=4)
    assert llm.generate("The sea is", params, progress=False)[0].completion_tokens == 4


@needs_kernels
def test_a_second_build_is_the_first_one_and_a_home_that_cannot_be_written_is_no_obstacle(
    forgotten: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = build.build()
    assert made.is_relative_to(tmp_path)
    before = made.stat().st_mtime_ns
    build.build.cache_clear()
    assert build.build() == made
    assert made.stat().st_mtime_ns == before
    monkeypatch.setenv("HOME", "/proc/nowhere")
    build.build.cache_clear()
    elsewhere = build.build()
    assert elsewhere.exists()
    assert elsewhere.name == made.name


@pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc"))), reason="there is no C compiler")
def test_where_there_is_a_compiler_there_are_kernels() -> None:
    """Or every other test of them would be skipped."""
    assert build.build().exists()


@needs_kernels
def test_no_warning_comes_from_the_compiler() -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler is not None
    sources = sorted((Path(build.__file__).parent / "csrc").glob("*.c"))
    assert sources
    for source in sources:
        command = [compiler, *build.flags(), "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_a_compiler_that_fails_says_why() -> None:
    def failed(stderr: str, status: int = 1) -> str:
        return build._reason(subprocess.CalledProcessError(status, "cc", stderr=stderr))

    missing = (
        "a.c:1:10: fatal error: math.h: No such file\n   1 | #include\ncompilation terminated.\n"
    )
    assert "math.h" in failed(missing)
    assert failed("ld: cannot find -lm\ncollect2: error: ld returned 1") == "ld: cannot find -lm"
    assert failed("", -9) == "exit status -9"


@needs_kernels
def test_without_a_home_it_is_built_elsewhere(
    forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    assert build.build().exists()
