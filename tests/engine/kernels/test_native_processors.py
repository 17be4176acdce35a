"""The tests of the kernels in C again, on kernels that are built for lesser processors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from native import needs_kernels

HERE = Path(__file__).parent
KERNELS = ("test_native_linear.py", "test_native_attention.py")
# Whole decoders, too, where most processors without AVX-512 are.
TESTS = {
    "x86-64-v4": KERNELS,
    "x86-64-v3": (*KERNELS, "test_native_decoder.py", "test_draws.py"),
    "x86-64": KERNELS,
}
NEEDED = {"x86-64-v4": "avx512vl", "x86-64-v3": "avx2", "x86-64": "sse2"}
CPUINFO = Path("/proc/cpuinfo")
FLAGS = CPUINFO.read_text().split() if CPUINFO.exists() else []


@needs_kernels
@pytest.mark.parametrize(
    "machine",
    [
        pytest.param(
            machine,
            marks=pytest.mark.skipif(
                NEEDED[machine] not in FLAGS,
                reason=f"this processor would stop at instructions of {machine}",
            ),
        )
        for machine in TESTS
    ],
)
def test_kernels_built_for_a_lesser_processor_agree_with_their_references(machine: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-x"]
    done = subprocess.run(
        [*command, *(str(HERE / name) for name in TESTS[machine])],
        env={**os.environ, "TEST_MACHINE": machine},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout
