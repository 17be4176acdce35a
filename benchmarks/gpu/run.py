"""Check and measure the engine on a GPU: one table, in at most 8 minutes.

    make gpu SECTIONS="correct kernels"
    PYTHONPATH=. python3 benchmarks/gpu/run.py --sections engine --pick "llama|nano"

Needs torch, triton, transformers, safetensors, tokenizers, jinja2, numpy and pytest, and no
network. Every section is a process of its own that is ended when its time is over, and that another
one follows where it is lost; what was written stays, and ``--table`` shows it if even this script
was killed. Without a CUDA device nothing is done and the status is 2; ``--dry`` tries the script on
toy shapes on the CPU, and measures nothing.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

# Modules of benchmarks and tests are imported by their bare names; the engine from here.
sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parents[2]))

try:
    from gpu import results, rows, table
    from gpu.results import ABOUT, COMPILE, ENDED, FACTS, SECONDS
except ModuleNotFoundError as error:
    sys.exit(f"{sys.executable} has no {error.name}; this needs torch and what CONTRIBUTING lists.")

COMPILE_SECONDS = 55
LOST = 17
"""The status of a process whose device answers nothing more."""
_MOST_SHARE = 3.0  # of a section's time, where there are few
_FEWEST_SECONDS = 8.0  # for which another process is worth its start
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_GRACE = 5.0  # seconds in which a section that is over its time may end by itself
_running: subprocess.Popen[bytes] | None = None


def run_section(name: str, args: argparse.Namespace) -> int:
    """Be the process of one section."""
    import torch

    if args.dry:
        torch.set_num_threads(1)
    else:
        card = torch.cuda.get_device_properties(0)
        facts = {
            "device": f"{card.name}, {card.major}.{card.minor}, {card.total_memory / 2**30:.0f} GiB"
        }
        (args.out / FACTS).write_text(json.dumps(facts))
    device = "stand-in" if args.dry else "cuda"
    left = args.until - time.monotonic()  # what is imported takes seconds
    section = rows.Section(name, args.out, left, device, args.pick)
    try:
        _fill(section, args)
    except rows.DeviceLost as lost:
        print(lost, file=sys.stderr, flush=True)
        os._exit(LOST)  # what Python does at its end would hang, or fail again
    return 0


def _fill(section: rows.Section, args: argparse.Namespace) -> None:
    match section.name:
        case "correct":
            from gpu import correct

            correct.run(section)
        case "kernels":
            import torch

            from gpu.kernels import passes

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


def _command(name: str, args: argparse.Namespace, seconds: float) -> list[str]:
    """What starts a section's process."""
    command = [sys.executable, __file__, "--section", name, "--out", str(args.out)]
    command += ["--until", f"{time.monotonic() + seconds:.1f}", "--pick", args.pick]
    command += ["--dry"] if args.dry else []
    return command + (["--model", args.model] if args.model else [])


def end_section(name: str, args: argparse.Namespace, seconds: float) -> str:
    """Run a section; how it ended.

    Where its process is lost in the middle of something, that is a bad row, and another process
    goes on behind it.
    """
    rows.forget(args.out, name)
    log = args.out / f"{name}.log"
    log.unlink(missing_ok=True)
    until = time.monotonic() + seconds
    lost: list[str] = []
    while True:
        status = _one_process(name, args, until - time.monotonic(), log)
        begun = rows.begun(args.out, name)
        if not status or not begun or begun == lost or until - time.monotonic() < _FEWEST_SECONDS:
            break
        lost = begun
        if status != LOST:  # then it wrote the row by itself
            rows.write(args.out, name, _lost_row(begun[-1], status))
    took = seconds - (until - time.monotonic())
    if status is None:
        ended = "killed: its time was over"
    else:
        ended = f"ended with status {status}" if status else "done"
    if status:
        print(log.read_text(errors="replace")[-1500:], file=sys.stderr)
    return f"{took:.0f} s of {seconds:.0f}, {ended}."


def _lost_row(begun: str, status: int) -> dict[str, str]:
    how = f"signal {-status}" if status < 0 else f"status {status}"
    return {"lost": begun, "note": f"{rows.BAD} its process ended with {how}: see the log"}


def _one_process(name: str, args: argparse.Namespace, seconds: float, log: Path) -> int | None:
    """Its status; ``None`` where it had to be killed."""
    global _running
    with log.open("a") as file:
        child = _running = subprocess.Popen(
            _command(name, args, seconds),
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        return child.wait(seconds + _GRACE)
    except subprocess.TimeoutExpired:
        print(f"{name}: {log.read_text(errors='replace')[-1500:]}", file=sys.stderr)
        return None
    finally:
        _kill(child)


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a section's process, and those it has started."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    child.wait()


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sections", nargs="+", choices=list(SECONDS), default=list(SECONDS))
    out = os.environ.get("OUT") or "gpu-results"
    parser.add_argument("--out", default=out, help="a folder; default: $OUT, or gpu-results")
    parser.add_argument("--budget", type=float, default=480, help="seconds")
    parser.add_argument(
        "--pick", default="", help="only what has this in its name, or that: this|that"
    )
    parser.add_argument("--no-compile", action="store_true", help="it was done before, here")
    parser.add_argument("--table", action="store_true", help="only print what was measured so far")
    parser.add_argument("--model", help="of the section quality")
    parser.add_argument("--dry", action="store_true", help="toy shapes on the CPU")
    parser.add_argument("--section", choices=[COMPILE, *SECONDS], help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)  # the system's clock
    args = parser.parse_args()
    args.out = Path(args.out or out).absolute()
    return args


def _obstacle() -> str:
    """Why there is nothing to measure; empty where there is."""
    try:
        import torch
    except ImportError:
        return f"{sys.executable} has no torch"
    return "" if torch.cuda.is_available() else "torch sees no CUDA device here"


class Ended(BaseException):
    """The run was told to end."""


def _end(signal_number: int, frame: object) -> None:
    raise Ended


def main() -> int:
    """Run the sections and print the table; 1 where something is bad, 2 without a GPU."""
    args = arguments()
    if args.section:
        return run_section(args.section, args)
    if args.table:
        text, good = results.write_table(args.out)
        print(text)
        return int(not good)
    obstacle = _obstacle()
    if obstacle and not args.dry:
        print(f"{obstacle}: nothing was checked.", file=sys.stderr)
        return 2
    args.out.mkdir(parents=True, exist_ok=True)
    for file in (FACTS, ABOUT, ENDED):
        (args.out / file).unlink(missing_ok=True)
    for name in (COMPILE, *SECONDS):
        rows.forget(args.out, name)
    about = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python3", *sys.argv]),
        "driver": results.driver(),
        "versions": results.versions(),
    }
    (args.out / ABOUT).write_text(json.dumps(about))
    seconds = {name: SECONDS[name] for name in args.sections}
    if not args.dry and not args.no_compile:
        seconds = {COMPILE: COMPILE_SECONDS, **seconds}
    whole = _run_all(args, seconds)
    text, good = results.write_table(args.out)
    print(table.shortened(text))
    return int(not (good and whole))


def _run_all(args: argparse.Namespace, seconds: Mapping[str, float]) -> bool:
    """Every section, each for its share of the budget; whether all had their turn."""
    share = min(_MOST_SHARE, args.budget / sum(seconds.values()))
    ended: dict[str, str] = {}
    before = [signal.signal(number, _end) for number in _ENDING]
    try:
        for name, most in seconds.items():
            ended[name] = end_section(name, args, most * share)
            print(f"{name}: {ended[name]}", file=sys.stderr, flush=True)
            (args.out / ENDED).write_text(json.dumps(ended))
            results.write_table(args.out)
    except Ended:
        if _running is not None:
            _kill(_running)
        return False
    finally:
        for number, handler in zip(_ENDING, before, strict=True):
            signal.signal(number, handler)
    return True


if __name__ == "__main__":
    sys.exit(main())
