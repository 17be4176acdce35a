"""The tests of the kernels in C again, on kernels that are built for lesser processors."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from engine.kernels.native.library import available

HERE = Path(__file__).parent
TESTS = ("test_native_linear.py", "test_native_attention.py", "test_native_decoder.py")
X86 = platform.machine() in ("x86_64", "AMD64")


@pytest.mark.skipif(not available() or not X86, reason="there is no C compiler for x86-64")
@pytest.mark.parametrize("machine", ["x86-64-v4", "x86-64-v3", "x86-64"])
def test_kernels_built_for_a_lesser_processor_agree_with_their_references(machine: str) -> None:
    known = Path("/proc/cpuinfo").read_text()
    needed = {"x86-64-v4": "avx512vl", "x86-64-v3": "avx2", "x86-64": "sse2"}[machine]
    if needed not in known:
        pytest.skip(f"this processor cannot run {machine}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x"]
    done = subprocess.run(
        [*command, *(str(HERE / name) for name in TESTS), str(HERE / "test_draws.py")],
        env={**os.environ, "TEST_MACHINE": machine},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
