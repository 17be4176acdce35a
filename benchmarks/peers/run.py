"""Tidemill beside its peers: the same model, the same token ids, the same output lengths.

    python benchmarks/peers/environments.py          # once: each peer's own environment
    python benchmarks/peers/run.py
    python benchmarks/peers/run.py --peers tidemill openvino --workloads mixed64 --runs 5

All engines are loaded, each in a process of its own, and take turns: one run of each, then the next
of each, so that a machine that drifts drifts for all. Who is not at work is stopped (SIGSTOP). One
turn of the first workload warms up and does not count; slow engines run once, without it. Rates are
tokens a second of wall time, prompt and output counted whole, whether they were computed or taken
from a cache; medians, with the range behind.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import IO, Any

from engine.catalog import resolve

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from environments import FOLDER, HOME, OPENVINO, ROOT, python_of
from workloads import SHARED, WORKLOADS, Item

HERE = Path(__file__).resolve().parent

VOCAB = 49_152


@dataclass(frozen=True, slots=True)
class Engine:
    """How one engine is started.

    Attributes:
        label: what the table calls it.
        python: its interpreter.
        script: its worker, beside this file.
        model: what the worker loads.
        settings: environment variables.
        arguments: for the worker, after the number of threads.
        slow: it gets one run of the workloads that would take minutes, or none.
    """

    label: str
    python: Path
    script: str
    model: str
    settings: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    slow: bool = False


def engines() -> dict[str, Engine]:
    """Every engine by the name that the command line gives it."""
    gguf, folder = str(resolve("smollm2").gguf), str(FOLDER)
    here = {"PYTHONPATH": str(ROOT)}
    own = Path(sys.executable)
    tidemill = ("tidemill_worker.py", "smollm2")
    return {
        "tidemill": Engine("Tidemill", own, *tidemill, here),
        "tidemill-int4": Engine(
            "Tidemill, int4", own, *tidemill, here, (json.dumps({"quantization": "int4"}),)
        ),
        "tidemill-bf16": Engine(
            "Tidemill, bfloat16", own, *tidemill, here, (json.dumps({"quantization": "none"}),)
        ),
        "openvino": Engine(
            "OpenVINO GenAI, int8", python_of("openvino"), "openvino_worker.py", str(OPENVINO)
        ),
        "vllm": Engine("vLLM, bfloat16, as it comes", python_of("vllm"), "vllm_worker.py", folder),
        "vllm-tuned": Engine(
            "vLLM, bfloat16, in one process on all cores",
            python_of("vllm"),
            "vllm_worker.py",
            folder,
            {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
            ("bind",),
        ),
        "llamacpp": Engine(
            "llama.cpp, Q4_1", python_of("llamacpp"), "llamacpp_worker.py", gguf, slow=True
        ),
        "transformers": Engine(
            "transformers, bfloat16, one by one",
            python_of("transformers"),
            "transformers_worker.py",
            folder,
            slow=True,
        ),
    }


# Workloads that a slow engine is asked for, and how many of their requests.
SLOW: dict[str, dict[str, int | None]] = {
    "llamacpp": {"mixed64": None, "prefix64": None, "few1": None, "few4": None, "few8": None},
    "transformers": {"mixed64": 6, "few1": None},
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One run."""

    engine: str
    workload: str
    run: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    first: float

    @property
    def rate(self) -> float:
        """Tokens a second, prompt and output."""
        return (self.prompt_tokens + self.output_tokens) / self.seconds


class Worker:
    """A running engine. It is stopped whenever it is not at work."""

    def __init__(self, name: str, engine: Engine, threads: int, log: IO[str]) -> None:
        self.name, self.engine = name, engine
        self._process = subprocess.Popen(
            [engine.python, HERE / engine.script, engine.model, str(threads), *engine.arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, **engine.settings, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,
        )
        hello = self._answer()
        self.ready_seconds, self.version = float(hello["ready"]), str(hello["version"])
        self._signal(signal.SIGSTOP)

    def run(self, workload: str, items: Sequence[Item], run: int) -> Figure:
        """Run a workload once."""
        rows = [[item.prompt, item.output_tokens] for item in items]
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        self._process.stdin.write(
            json.dumps({"items": rows, "shared": SHARED.get(workload, 0)}) + "\n"
        )
        self._process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        wanted = sum(item.output_tokens for item in items)
        if answer["output_tokens"] != wanted:
            raise SystemExit(f"{self.name} made {answer['output_tokens']} tokens, not {wanted}.")
        prompt = sum(len(item.prompt) for item in items)
        return Figure(self.name, workload, run, prompt, wanted, answer["seconds"], answer["first"])

    def peak_bytes(self) -> int:
        """Most resident memory so far, over the processes of its session."""
        group, peak = self._process.pid, 0
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                if os.getsid(int(status.parent.name)) != group:
                    continue
                fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
                peak += int(fields["VmHWM"].split()[0]) * 1024
            except (OSError, KeyError):
                continue
        return peak

    def close(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended; see its log.")
        found: dict[str, Any] = json.loads(line)
        return found

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)


def measure(args: argparse.Namespace, workers: list[Worker]) -> list[Figure]:
    """Every workload, in turns."""
    figures = []
    for workload in args.workloads:
        warms_up = args.warm_up and workload == args.workloads[0]
        for turn in range(0 if warms_up else 1, args.runs + 1):
            items = WORKLOADS[workload](VOCAB, turn)
            for worker in workers:
                some = items
                if worker.engine.slow:
                    asked = SLOW[worker.name]
                    if workload not in asked or turn != 1:
                        continue
                    some = items[: asked[workload]]
                figure = worker.run(workload, some, turn)
                shown = "warm-up" if turn == 0 else f"run {turn}"
                print(
                    f"{workload} {shown}: {worker.name} {figure.rate:,.0f} tok/s",
                    file=sys.stderr,
                    flush=True,
                )
                if turn > 0:
                    figures.append(figure)
    return figures


def report(figures: list[Figure], workers: list[Worker], args: argparse.Namespace) -> None:
    """Everything that was found, in Markdown."""
    print(f"{date.today()}, {platform.machine()}, {args.threads} threads; `{' '.join(sys.argv)}`\n")
    print("| engine | version | ready after | peak memory |")
    print("|---|---|---|---|")
    for worker in workers:
        peak = worker.peak_bytes() / 2**20
        print(
            f"| {worker.engine.label} | {worker.version} | {worker.ready_seconds:.1f} s "
            f"| {peak:,.0f} MiB |"
        )
    print()
    table(figures, args.peers, args.workloads)
    print()
    for workload in args.workloads:
        print(f"- **{workload}**: {(WORKLOADS[workload].__doc__ or '').partition(chr(10))[0]}")


def table(figures: list[Figure], names: Sequence[str], workloads: Sequence[str]) -> None:
    """One line an engine and workload: medians, their range, and how many times Tidemill's is."""
    print("| workload | engine | total tok/s (range) | Tidemill | output tok/s | first result |")
    print("|---|---|---|---|---|---|")
    by_name = engines()
    for workload in workloads:
        rates = {
            name: [f.rate for f in figures if (f.workload, f.engine) == (workload, name)]
            for name in names
        }
        for name, found in rates.items():
            if not found:
                continue
            runs = [f for f in figures if (f.workload, f.engine) == (workload, name)]
            ours = rates.get("tidemill")
            ratio = f"{median(ours) / median(found):.2f}x" if ours and name != "tidemill" else ""
            print(
                f"| {workload} | {by_name[name].label} "
                f"| {median(found):,.0f} ({min(found):,.0f}-{max(found):,.0f}) | {ratio} "
                f"| {median(f.output_tokens / f.seconds for f in runs):,.0f} "
                f"| {median(f.first for f in runs):.2f} s |"
            )


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(engines())
    parser.add_argument("--peers", nargs="+", choices=names, default=names)
    parser.add_argument(
        "--workloads", nargs="+", choices=list(WORKLOADS), default=["mixed64", "prefix64"]
    )
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm-up", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--log", type=Path, default=HOME / "peers.log", help="what engines print")
    parser.add_argument("--json", type=Path, help="write every run there")
    return parser.parse_args()


def main() -> None:
    """Start the engines, measure, and print the tables."""
    args = arguments()
    workers: list[Worker] = []
    with args.log.open("w") as log:
        try:
            for name in args.peers:
                print(f"starting {name}", file=sys.stderr, flush=True)
                workers.append(Worker(name, engines()[name], args.threads, log))
            figures = measure(args, workers)
            report(figures, workers, args)
            if args.json:
                args.json.write_text(json.dumps([asdict(figure) for figure in figures]))
        finally:
            for worker in workers:
                worker.close()


if __name__ == "__main__":
    main()
