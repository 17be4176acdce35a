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
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from itertools import count
from statistics import fmean, median
from time import thread_time

import numpy as np
import tokenizers
import torch

from engine import SamplingParams
from engine.config import EngineConfig, ModelConfig, RopeConfig
from engine.core import EngineCore, LoadedModel
from engine.executors.choose import Choice
from engine.executors.device.build import build_device_runner
from engine.executors.executor import Pending
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.placement import Placement
from engine.executors.runner import Sampled, SampledTokens
from engine.kernels.fused.device import Device, Work
from engine.kernels.fused.stand_in import StandIn
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.reference.stand_in import StandInBackend
from engine.models.decoder import Decoder
from engine.requests import Request
from engine.scheduler.step import Step
from engine.tokenizer import Tokenizer

VOCAB = 32_000
END, TOKEN = 5, 7
BLOCK = 16
CONTEXT = 4_096
OUTPUT = 64
GROUPS = 64
WARM_UP = 160  # steps: more than twice an output's
WORKLOADS = ("decode", "arrivals", "prefixes")
MODEL = ModelConfig(
    family="llama",
    vocab_size=VOCAB,
    hidden_size=16,
    intermediate_size=16,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=16,
    max_position=CONTEXT,
    rms_norm_eps=1e-5,
    rope=RopeConfig(),
    tie_embeddings=True,
    eos_token_ids=(END,),
)


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


@dataclass(slots=True)
class Launched:
    """A step that is done as soon as it is launched."""

    runner: "IdleRunner"
    count: int

    def collect(self) -> SampledTokens:
        """See `Pending.collect`."""
        began = thread_time()
        sampled = SampledTokens(np.full(self.count, TOKEN, dtype=np.int64))
        self.runner.answering += thread_time() - began
        return sampled


class IdleRunner:
    """Lays out steps, computes none, and takes the time of what it does.

    Args:
        sequences: slots.
        max_in_flight: see `StepRunner`.
    """

    def __init__(self, sequences: int, max_in_flight: int) -> None:
        choice = Choice(
            torch.device("cpu"), torch.float32, ReferenceBackend(), "none", torch.float32, 1
        )
        blocks = (sequences + 16) * 128 + CONTEXT // BLOCK
        budget = max(8_192, sequences)
        self.placement = Placement(choice, sequences, budget, CONTEXT, blocks, blocks, ())
        self.max_in_flight = max_in_flight
        tables = BlockTables(sequences, CONTEXT // BLOCK, BLOCK)
        self._inputs = StepInputs(tables, budget)
        self.launched_at = self.filling = self.answering = 0.0

    def launch(self, step: Step) -> Launched:
        """See `StepRunner.launch`."""
        self.launched_at = began = thread_time()
        self._inputs.fill(step)
        self.filling = thread_time() - began
        return Launched(self, len(self._inputs.picked))

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `StepRunner.on_layer`."""


class IdleDevice(StandIn):
    """Takes work and drops it."""

    def submit(self, work: Work) -> None:
        """See `Device.submit`."""


class IdleBackend(StandInBackend):
    """Opens it."""

    def open(self, torch_device: torch.device) -> Device:
        """See `DeviceBackend.open`."""
        return IdleDevice()


class TimedDeviceRunner:
    """The runner of GPUs, and the time that its calls take.

    Args:
        sequences: slots.
        max_in_flight: see `StepRunner`.
    """

    def __init__(self, sequences: int, max_in_flight: int) -> None:
        backend = IdleBackend()
        choice = Choice(torch.device("cpu"), torch.float32, backend, "none", torch.float32, 1)
        blocks = (sequences + 16) * 128 + CONTEXT // BLOCK
        config = EngineConfig(
            block_size=BLOCK,
            max_num_seqs=sequences,
            max_batch_tokens=max(8_192, sequences),
            kv_cache_bytes=blocks * backend.block_bytes(MODEL, BLOCK, torch.float32),
            overlap=max_in_flight > 0,
        )
        decoder = Decoder(MODEL, backend)
        decoder.finish(torch.device("cpu"))
        self._runner = build_device_runner(config, MODEL, choice, backend, decoder)
        self.placement = self._runner.placement
        self.max_in_flight = self._runner.max_in_flight
        self.launched_at = self.filling = self.answering = 0.0

    def launch(self, step: Step) -> Pending[Sampled]:
        """See `StepRunner.launch`."""
        self.launched_at = began = thread_time()
        pending = self._runner.launch(step)
        self.filling = thread_time() - began
        return TimedPending(self, pending)

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `StepRunner.on_layer`."""


@dataclass(slots=True)
class TimedPending:
    """A step of it."""

    runner: TimedDeviceRunner
    pending: Pending[Sampled]

    def collect(self) -> Sampled:
        """See `Pending.collect`."""
        began = thread_time()
        sampled = self.pending.collect()
        self.runner.answering += thread_time() - began
        return sampled


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
            f"{each.schedule:,.0f} | {each.fill:,.0f} | {each.answer:,.0f} | {each.tokens:,.0f} | {each.total:,.0f} | "
            f"{each.mean:,.0f} | {each.adding:,.0f} |"
        )


if __name__ == "__main__":
    main()
