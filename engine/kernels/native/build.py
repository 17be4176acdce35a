"""Builds the kernels in C with the system's compiler, once a machine, and keeps the library."""

import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

_FOLDER = Path(__file__).parent / "csrc"
_SOURCES = tuple(sorted(_FOLDER.glob("*.c")))
_HEADERS = tuple(sorted(_FOLDER.glob("*.h")))
_MACHINE = "native"
_FLAGS: tuple[str, ...] = (
    "-std=gnu11",
    "-O3",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-pthread",
    "-fPIC",
)
_COMPILERS = ("cc", "gcc")
_SECONDS = 120


class BuildFailed(Exception):
    """The native kernels could not be built; the message says why."""


def flags() -> tuple[str, ...]:
    """What the compiler is called with."""
    return (*_FLAGS, f"-march={_MACHINE}")


@cache
def build() -> Path:
    """The library's path, built now unless an equal one was built before.

    Its name is a hash of sources, flags, compiler and processor, so that a home folder shared by
    different machines holds one for each.

    Raises:
        BuildFailed: there is no compiler, it fails, or no folder can be written.
    """
    compiler = next(filter(None, map(shutil.which, _COMPILERS)), None)
    if compiler is None:
        raise BuildFailed("there is no C compiler (cc or gcc)")
    target = _folder() / f"kernels-{_fingerprint(compiler)}.so"
    if not target.exists():
        _compile(compiler, target)
    return target


def _folder() -> Path:
    try:
        folder = Path.home() / ".cache" / "tidemill"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except (OSError, RuntimeError):  # the second where there is no home
        # A folder of this process's own: a shared one could hold another user's library.
        return Path(tempfile.mkdtemp(prefix="tidemill-"))


def _fingerprint(compiler: str) -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    processor = next(
        (x for x in lines if x.startswith(("flags", "Features"))), platform.processor()
    )
    digest = hashlib.sha256()
    for each in (
        *(path.read_bytes() for path in _SOURCES + _HEADERS),
        " ".join(flags()).encode(),
        _run(compiler, "--version").encode(),
        processor.encode(),
    ):
        digest.update(hashlib.sha256(each).digest())
    return digest.hexdigest()[:16]


def _compile(compiler: str, target: Path) -> None:
    """Compile the sources in parallel, one on each CPU, and link the library."""
    try:
        with (
            tempfile.TemporaryDirectory(dir=target.parent) as folder,
            ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool,
        ):
            made = Path(folder) / target.name
            objects = [str(Path(folder) / f"{source.stem}.o") for source in _SOURCES]
            compile_one = partial(_run, compiler, *flags(), "-c", "-o")
            list(pool.map(compile_one, objects, map(str, _SOURCES)))
            _run(compiler, *flags(), "-shared", *objects, "-o", str(made), "-lm")
            made.replace(target)
    except OSError as error:
        raise BuildFailed(f"{target.parent} cannot be written: {error.strerror}") from error


def _run(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except subprocess.CalledProcessError as error:
        raise BuildFailed(f"{command[0]} failed: {_reason(error)}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildFailed(f"{command[0]} could not be run") from error
    return done.stdout


def _reason(error: subprocess.CalledProcessError) -> str:
    """The first line that names an error, else the last one, else how the compiler ended."""
    lines = [line.strip() for line in (error.stderr or "").splitlines() if line.strip()]
    named = (x for x in lines if "error" in x.lower() or "cannot find" in x)
    return next(named, lines[-1] if lines else f"exit status {error.returncode}")
