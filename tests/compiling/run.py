"""Compile every kernel that is shipped, for every card it is shipped for, without any of them.

make compile                                  everything, with a line a kernel
make compile ARGS="--sample"                  what `make test` compiles of it
make compile ARGS="--package attention"       what one package ships

Each package in `engine.kernels.triton` has a module ``shipped`` whose ``shipped_launches`` gives
what is launched on a card, on tensors of the meta device. Each distinct launch is compiled once, in
worker processes, with a stand-in for Triton's driver: no CUDA context is made. What was found is
kept in ``~/.cache/tidemill``, under a checksum of the kernel's source and of all that decides its
code.
"""

import argparse
import json
import os
import sys
import time
from dataclasses import asdict

# Before Triton is imported: under its interpreter nothing is compiled.
os.environ["TRITON_INTERPRET"] = "0"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
# It is part of the key of Triton's cache, so what is compiled with it serves nobody without it.
os.environ.pop("TRITON_DEFAULT_FP_FUSION", None)

import triton

from compiling.jobs import jobs, module_at, package_of, packages, sample
from compiling.outcome import SHARED_BYTES
from compiling.workers import compile_all


def main() -> int:
    """Compile what the command line names; 1 where something may not be shipped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", nargs="+", help="of engine.kernels.triton; default: all")
    parser.add_argument("--file", help="a file that ships kernels, in place of the packages")
    parser.add_argument("--sample", action="store_true", help="one launch a kernel and types")
    parser.add_argument("--card", type=int, nargs="+", help="compute capability, 90 for 9.0")
    parser.add_argument(
        "--keep-code", action="store_true", help="leave the code in Triton's cache, to be run"
    )
    parser.add_argument("--json", action="store_true", help="one line of JSON a launch")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    modules = [module_at(args.file)] if args.file else packages()
    if args.package:
        modules = [one for one in modules if package_of(one) in args.package]
    found = list(jobs(modules, args.card or SHARED_BYTES))
    picked = sample(found) if args.sample else found
    began, bad = time.perf_counter(), 0
    for row in compile_all(picked, args.workers, keep_code=args.keep_code):
        bad += bool(row.fault)
        line = json.dumps(asdict(row) | {"fault": row.fault}) if args.json else str(row)
        print(line, flush=True)
    kernels = len({(job.package, job.launch.kernel.__name__) for job in found})
    print(
        f"{len(picked)} of {len(found)} launches of {kernels} kernels, {bad} bad, "
        f"{time.perf_counter() - began:.0f} s, Triton {triton.__version__}",
        file=sys.stderr,
    )
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main())
