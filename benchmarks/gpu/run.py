"""Check and measure the engine on a GPU: one table, in at most 8 minutes.

    make gpu SECTIONS="correct kernels"
    PYTHONPATH=. python3 benchmarks/gpu/run.py --sections engine --pick llama --out gpu-results

Needs torch, triton, transformers, safetensors, tokenizers, jinja2, numpy and pytest, and no
network. Every section is a process of its own that is ended when its time is over; what it had
written stays. Without a CUDA device nothing is done and the status is 2; ``--dry`` tries the script
on toy shapes on the CPU, and measures nothing.
"""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

# Modules of benchmarks and tests are imported by their bare names; the engine from here.
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).parents[2]))

from gpu import rows, table

SECONDS = {"correct": 90, "kernels": 120, "engine": 180, "quality": 60}
"""That each section may take at the most."""
COMPILE, COMPILE_SECONDS = "compile", 30
"""What is done ahead of the sections, in a process of its own as they are."""
FACTS = "facts.json"
_GRACE = 5.0  # seconds in which a section that is over its time may end by itself
_PACKAGES = ("torch", "triton", "transformers", "tokenizers", "safetensors", "numpy")


def run_section(name: str, args: argparse.Namespace) -> int:
    """Be the process of one section; 1 where a row is bad."""
    import torch

    device = "cpu" if args.dry else "cuda"
    if args.dry:
        torch.set_num_threads(1)
    else:
        card = torch.cuda.get_device_properties(0)
        facts = {
            "device": f"{card.name}, {card.major}.{card.minor}, {card.total_memory / 2**30:.0f} GiB"
        }
        (args.out / FACTS).write_text(json.dumps(facts))
    section = rows.Section(name, args.out, args.seconds, device, args.pick)
    match name:
        case "correct":
            from gpu import correct

            correct.run(section)
        case "kernels":
            from gpu import passes

            with torch.inference_mode():
                passes.run(section)
        case "engine":
            from gpu import serving

            serving.run(section)
        case "compile":
            from gpu import compiled

            compiled.run(section)
        case _:
            from gpu import perplexity

            perplexity.run(section, args.model)
    return int(section.bad > 0)


def _command(name: str, args: argparse.Namespace, seconds: float) -> list[str]:
    """What starts a section's process."""
    command = [sys.executable, __file__, "--section", name, "--out", str(args.out)]
    command += ["--seconds", f"{seconds:.0f}", "--pick", args.pick]
    command += ["--dry"] if args.dry else []
    return command + (["--model", args.model] if args.model else [])


def end_section(name: str, args: argparse.Namespace, seconds: float) -> tuple[str, bool]:
    """Run a section in a process of its own; how it ended, and whether all was well."""
    rows.path(args.out, name).unlink(missing_ok=True)
    log = args.out / f"{name}.log"
    began = time.monotonic()
    with log.open("w") as file:
        child = subprocess.Popen(
            _command(name, args, seconds),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = child.wait(seconds + _GRACE)
            ended = f"ended with status {status}" if status else "done"
        except subprocess.TimeoutExpired:
            status, ended = 1, "killed: its time was over"
        finally:
            _kill(child)
    took = time.monotonic() - began
    if status:
        print(f"{name}: {ended}\n{log.read_text(errors='replace')[-1500:]}", file=sys.stderr)
    return f"{took:.0f} s of {seconds:.0f}, {ended}.", status == 0


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a section's process, and those it has started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def versions() -> str:
    """Of Python and the packages that matter."""
    found = [f"Python {platform.python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def driver() -> str:
    """The version of NVIDIA's driver, as the system says it."""
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.is_file() else "unknown"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", choices=list(SECONDS), default=list(SECONDS))
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--budget", type=float, default=480, help="seconds")
    parser.add_argument("--pick", default="", help="only what has this in its name")
    parser.add_argument("--model", help="of the section quality")
    parser.add_argument("--dry", action="store_true", help="toy shapes on the CPU")
    parser.add_argument("--section", choices=[COMPILE, *SECONDS], help=argparse.SUPPRESS)
    parser.add_argument("--seconds", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.out = args.out.absolute()
    return args


def _obstacle() -> str:
    """Why there is nothing to measure; empty where there is."""
    try:
        import torch
    except ImportError:
        return f"{sys.executable} has no torch"
    return "" if torch.cuda.is_available() else "torch sees no CUDA device here"


def main() -> int:
    """Run the sections and print the table; 1 where something is bad, 2 without a GPU."""
    args = arguments()
    if args.section:
        return run_section(args.section, args)
    obstacle = _obstacle()
    if obstacle and not args.dry:
        print(f"{obstacle}: nothing was checked.", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / FACTS).unlink(missing_ok=True)
    seconds = {name: SECONDS[name] for name in args.sections}
    if not args.dry:
        seconds = {COMPILE: COMPILE_SECONDS, **seconds}
    share = min(1.0, args.budget / sum(seconds.values()))
    results, good = {}, True
    for name, most in seconds.items():
        ended, well = end_section(name, args, most * share)
        results[name] = ended, rows.read(args.out, name)
        good &= well or name == COMPILE
    file = args.out / FACTS
    facts = json.loads(file.read_text()) if file.exists() else {"device": "none: a trial run"}
    facts |= {
        "driver": driver(),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": versions(),
        "command": shlex.join(["python3", *sys.argv]),
    }
    text = table.render(facts, results)
    (args.out / "table.md").write_text(text)
    print(table.shortened(text))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
