"""What the host does for a step of the engine, over a device that computes nothing.

    python benchmarks/host_step.py
    python benchmarks/host_step.py --sequences 1024 --in-flight 1 --steps 500

The engine's loop runs as it is: scheduler, block pool, index arrays, outputs. With ``--runner cpu``
its runner lays out each step's arrays and answers at once, with the same token for everyone. With
``--runner device`` it is the runner of GPUs, whole, over a device that drops what is submitted: all
that the host does for a step but the launches of CUDA. Contexts are of different
lengths, so about one sequence in 16 begins a block in any one step. Workloads:

- decode: so many sequences that do not end;
- arrivals: outputs of 64 tokens, each that ends replaced by a request with a prompt of its own, of
  128 tokens: with 1,024 sequences, 16 ends and 16 admissions a step;
- prefixes: the same with prompts of 1,024 tokens, of which 1,008 are the prefix of one of 64
  groups, cached once the first of each group has run.

Microseconds a step of the thread's own CPU time, so that other processes do not count: nothing
waits here. Medians; of the whole step also the mean, which has the rare long ones in it.
"""

import argparse
import json
import os
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import date
from itertools import count
from statistics import fmean, median
from time import thread_time

import numpy as np
import tokenizers
from idle import BLOCK, MODEL, VOCAB, IdleRunner, TimedDeviceRunner

from engine import SamplingParams
from engine.config import EngineConfig
from engine.core import EngineCore, LoadedModel
from engine.requests import Request
from engine.tokenizer import Tokenizer

OUTPUT = 64
GROUPS = 64
WARM_UP = 160  # steps: more than twice an output's
WORKLOADS = ("decode", "arrivals", "prefixes")


@dataclass(frozen=True, slots=True)
class Times:
    """One workload: microseconds a step.

    ``tokens`` is all that follows when a step's tokens are there: books, outputs, ends. ``adding``
    is for new requests, between the steps, and in no other figure.
    """

    runner: str
    workload: str
    sequences: int
    in_flight: int
    schedule: float
    fill: float
    answer: float
    tokens: float
    adding: float
    total: float
    mean: float


RUNNERS: dict[str, type[IdleRunner] | type[TimedDeviceRunner]] = {
    "cpu": IdleRunner,
    "device": TimedDeviceRunner,
}


def make_core(runner: IdleRunner | TimedDeviceRunner) -> EngineCore:
    """An engine over this runner."""
    words = tokenizers.models.WordLevel({"w": 0}, unk_token="w")
    tokenizer = Tokenizer(tokenizers.Tokenizer(words), special_tokens={}, chat_templates={})
    config = EngineConfig(block_size=BLOCK)
    return EngineCore(config, LoadedModel("nothing", MODEL, tokenizer, runner))


class Requests:
    """Makes a workload's requests, seeded."""

    def __init__(self, workload: str) -> None:
        self._workload = workload
        self._random = np.random.default_rng(5)
        self._numbers = count()
        self._groups = [self._draw(1_008) for _ in range(GROUPS)]

    def _draw(self, size: int) -> tuple[int, ...]:
        return tuple(self._random.integers(1, VOCAB, size).tolist())

    def make(self, output: int) -> Request:
        """The next one, with an output of so many tokens."""
        number = next(self._numbers)
        if self._workload == "prefixes":
            prompt = self._groups[number % GROUPS] + self._draw(16)
        else:
            prompt = self._draw(128 if self._workload == "arrivals" else 64 + number % 97)
        params = SamplingParams(temperature=0, max_tokens=output, ignore_eos=True)
        return Request(str(number), prompt, params)


def measure(kind: str, workload: str, sequences: int, in_flight: int, steps: int) -> Times:
    """Run a workload until all sequences decode, and then so many steps."""
    runner = RUNNERS[kind](sequences, in_flight)
    core = make_core(runner)
    requests = Requests(workload)
    forever = 2 * WARM_UP + steps
    for number in range(sequences):
        core.add(requests.make(forever if workload == "decode" else 100 + number % OUTPUT))
    taken: dict[str, list[float]] = {
        name: [] for name in ("schedule", "fill", "answer", "tokens", "adding", "total")
    }
    while core.stats().waiting:
        core.step()
    for _ in range(WARM_UP):
        for _ in core.step():
            core.add(requests.make(OUTPUT))
    for _ in range(steps):
        runner.answering = 0.0
        began = thread_time()
        finished = core.step()
        total = thread_time() - began
        schedule = runner.launched_at - began
        rest = total - schedule - runner.filling - runner.answering
        made = [requests.make(OUTPUT) for _ in finished]
        began = thread_time()
        for request in made:
            core.add(request)
        adding = thread_time() - began
        figures = (schedule, runner.filling, runner.answering, rest, adding, total)
        for name, seconds in zip(taken, figures, strict=True):
            taken[name].append(seconds * 1e6)
    medians = {name: median(each) for name, each in taken.items()}
    return Times(kind, workload, sequences, in_flight, **medians, mean=fmean(taken["total"]))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument(
        "--sequences", type=int, nargs="+", default=[1, 64, 256, 1_024], help="of decode"
    )
    parser.add_argument("--in-flight", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--runner", nargs="+", choices=RUNNERS, default=list(RUNNERS))
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure and print the table."""
    args = arguments()
    found = []
    cases = [
        (kind, workload, sequences, in_flight)
        for kind in args.runner
        for workload in args.workload
        for sequences in (args.sequences if workload == "decode" else args.sequences[-1:])
        for in_flight in args.in_flight
    ]
    for case in cases:
        found.append(measure(*case, args.steps))
        if not args.json:
            print(".", end="", file=sys.stderr, flush=True)
    if args.json:
        print(json.dumps([asdict(each) for each in found]))
        return
    cores = len(os.sched_getaffinity(0))
    print(f"\n{date.today()}, {platform.machine()}, {cores} cores, Python ", end="")
    print(f"{platform.python_version()}, numpy {np.__version__}; microseconds a step\n")
    print("| runner | workload | sequences | in flight | schedule | fill | answer | ", end="")
    print("tokens | step | mean | adding |\n|---|---|---|---|---|---|---|---|---|---|---|")
    for each in found:
        print(
            f"| {each.runner} | {each.workload} | {each.sequences:,} | {each.in_flight} | "
            f"{each.schedule:,.0f} | {each.fill:,.0f} | {each.answer:,.0f} | "
            f"{each.tokens:,.0f} | {each.total:,.0f} | {each.mean:,.0f} | {each.adding:,.0f} |"
        )


if __name__ == "__main__":
    main()
