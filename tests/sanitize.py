"""Run the tests of the C kernels on a build under the address and undefined-behaviour sanitizers.

Arguments go to pytest, such as ``-k attention``. The first report of a sanitizer is printed and
ends the run. ``TEST_MACHINE=x86-64-v3 make sanitize`` checks the code for lesser processors.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from engine.kernels.native import build

ROOT = Path(__file__).parents[1]
# Without those that build kernels for other processors: a compiler is too slow under it.
TESTS = ("tests/engine/kernels", "--ignore=tests/engine/kernels/test_native_processors.py")
FLAGS = ("-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined")


def find_runtime() -> str:
    """The sanitizers' library, which must be loaded before everything else.

    Raises:
        SystemExit: there is no GNU compiler with sanitizers.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise SystemExit("There is no C compiler (cc or gcc).")
    command = [compiler, "-print-file-name=libasan.so"]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(found).is_absolute():
        raise SystemExit("The C compiler has no libasan.so; Debian keeps it in libgcc-12-dev.")
    return found


def environment(runtime: str) -> dict[str, str]:
    """What pytest runs with: the first report ends it."""
    # The interpreter frees little at its end, so leaks are not looked for.
    options = "detect_leaks=0:halt_on_error=1"
    return {
        **os.environ,
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": options,
        "UBSAN_OPTIONS": options,
        "TEST_FLAGS": " ".join(FLAGS),
    }


def main() -> int:
    runtime = find_runtime()
    # Built here, where the compiler itself does not run under the sanitizer.
    build._MACHINE = os.environ.get("TEST_MACHINE", build._MACHINE)
    build._FLAGS = (*build._FLAGS, *FLAGS)
    print(f"Kernels under sanitizers: {build.build()}", flush=True)
    # A report goes to the process's standard error, which pytest would otherwise keep.
    command = [sys.executable, "-m", "pytest", "-q", "--capture=sys", *TESTS, *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT, env=environment(runtime), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
