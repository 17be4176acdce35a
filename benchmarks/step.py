"""Where a decode step's time goes: each pass, against what the machine can do at best.

    python benchmarks/step.py
    python benchmarks/step.py --sequences 16 --contexts 160 --cache bfloat16

First the machine's marks, measured in the same run: how fast all threads together read memory, and
the fastest of the model's own products with many rows. Then steps of so many sequences at each
context, on a cache that is full of numbers, with every pass timed inside the kernels: products as
their share of the fastest product, attention as its multiple of the time that reading its keys and
values takes. Last the engine as it runs, from `LLM.step`: what a step spends outside of the passes,
which is Python and the plan, and what it allocates, as torch's profiler sees it. All are medians.
"""

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from statistics import median
from time import perf_counter

import torch
from torch.profiler import ProfilerActivity, profile

from engine import SamplingParams
from engine.catalog import resolve
from engine.config import EngineConfig, ModelConfig
from engine.core import EngineCore
from engine.kernels.int8 import quantise_weight
from engine.kernels.native.cache import AREA, area_bytes
from engine.kernels.native.linear import linear
from engine.kernels.native.weights import pack
from engine.models.families import load_config
from engine.requests import Request
from engine.runner.building import Built, build
from engine.runner.executor import Executor, NativeExecutor
from engine.scheduler.step import Admission, Step, Work

FILL = 60  # of every byte of a cache: small numbers in bfloat16, in int8 and as scales
FIRST_TOKEN = 100
PRODUCTS = ("qkv", "output", "gate and up", "down", "head")


@dataclass(frozen=True, slots=True)
class Marks:
    """What the machine does at best."""

    bytes_per_second: float
    flops_per_second: float


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Steps of ``sequences`` decodes at one context. Times are milliseconds."""

    sequences: int
    context: int
    cache_dtype: str
    step_ms: float
    passes_ms: dict[str, float]
    cache_bytes: int
    attention_floor_ms: float
    product_flops: float
    product_floor_ms: float

    @property
    def products_ms(self) -> float:
        """All matrix products."""
        return sum(self.passes_ms[name] for name in PRODUCTS)


@dataclass(frozen=True, slots=True)
class Loop:
    """The engine's own steps of ``sequences`` decodes."""

    sampling: str
    sequences: int
    step_ms: float
    outside_ms: float
    allocations: dict[str, int] = field(default_factory=dict)


def read_bandwidth(threads: int, gib: float = 1.0) -> float:
    """Bytes a second that all threads together read, summing a tensor that no cache holds."""
    torch.set_num_threads(threads)
    values = torch.full((int(gib * 2**28),), 1.0)
    times = []
    for _ in range(9):
        began = perf_counter()
        values.sum()
        times.append(perf_counter() - began)
    return values.nbytes / min(times)


def product_rate(config: ModelConfig, threads: int, rows: int = 768) -> float:
    """FLOP/s of the fastest int8 product among the model's shapes, rounding of rows included."""
    shapes = {
        (config.hidden_size, config.intermediate_size),
        (config.intermediate_size, config.hidden_size),
        (config.hidden_size, config.hidden_size),
    }
    best = 0.0
    for inputs, outputs in shapes:
        weight, x = pack(quantise_weight(torch.randn(outputs, inputs))), torch.randn(rows, inputs)
        times = []
        for _ in range(40):
            began = perf_counter()
            linear(x, weight, threads=threads)
            times.append(perf_counter() - began)
        best = max(best, 2 * rows * inputs * outputs / min(times))
    return best


def native(executor: Executor) -> NativeExecutor:
    """The executor, if it is the one whose passes are timed."""
    if not isinstance(executor, NativeExecutor):
        raise SystemExit("The kernels in C do not run here: `tidemill doctor` says why.")
    return executor


def weights_of(config: ModelConfig) -> int:
    """Numbers in all projections, the head included: each is multiplied once a token."""
    queries = config.num_heads * config.head_dim
    pairs = 2 * config.num_kv_heads * config.head_dim
    layer = config.hidden_size * (2 * queries + pairs + 3 * config.intermediate_size)
    return config.num_layers * layer + config.vocab_size * config.hidden_size


def engine_at(name: str, config: ModelConfig, sequences: int, context: int, cache: str) -> Built:
    """A model whose cache holds so many contexts."""
    blocks = sequences * -(-context // 16)
    per_token = max(2 * config.num_kv_heads * (config.head_dim * 2 + 4) * config.num_layers, 1)
    settings = EngineConfig(
        model=name,
        device="cpu",
        max_num_seqs=sequences,
        kv_cache_dtype=cache,  # type: ignore[arg-type]
        kv_cache_bytes=(blocks + 1) * 16 * per_token,
    )
    return build(settings, config, resolve(name))


def decode(built: Built, config: ModelConfig, sequences: int, context: int, runs: int) -> float:
    """Seconds of a step, the median of ``runs``; the passes' clocks go on."""
    per = -(-context // built.inputs.block_size)
    works = tuple(
        Work(
            slot,
            context - 1,
            (FIRST_TOKEN + slot,),
            tuple(range(slot * per, (slot + 1) * per)),
            sample=True,
            admission=Admission(SamplingParams(), 0, (FIRST_TOKEN + slot,), ()),
        )
        for slot in range(sequences)
    )
    built.inputs.fill(Step(works))
    times = []
    for _ in range(runs):
        began = perf_counter()
        built.executor.execute(built.inputs, logits=False)
        times.append(perf_counter() - began)
    return median(times)


def steps(
    args: argparse.Namespace, config: ModelConfig, marks: Marks, context: int, cache: str
) -> DecodeStep:
    """Measure steps at one context with one kind of cache."""
    count = args.sequences
    built = engine_at(args.model, config, count, context, cache)
    decoder = native(built.executor).decoder
    decoder.cache.fill(FILL)
    decode(built, config, count, context, 3)
    before = decoder.seconds
    seconds = decode(built, config, count, context, args.runs)
    passes = {name: (s - before[name]) / args.runs * 1e3 for name, s in decoder.seconds.items()}
    dtype = built.placement.choice.cache_dtype
    areas = count * -(-context // AREA) * config.num_kv_heads * config.num_layers
    read = areas * area_bytes(config.head_dim, dtype)
    flops = 2.0 * count * weights_of(config)
    return DecodeStep(
        sequences=count,
        context=context,
        cache_dtype=str(dtype).removeprefix("torch."),
        step_ms=seconds * 1e3,
        passes_ms=passes,
        cache_bytes=read,
        attention_floor_ms=read / marks.bytes_per_second * 1e3,
        product_flops=flops,
        product_floor_ms=flops / marks.flops_per_second * 1e3,
    )


def loop(args: argparse.Namespace, sampling: str, params: SamplingParams) -> Loop:
    """The engine's own steps, once all sequences decode."""
    core = EngineCore(EngineConfig(model=args.model, device="cpu", max_num_seqs=args.sequences))
    decoder = native(core.runner.executor).decoder
    for index in range(args.sequences):
        core.add(Request(str(index), (FIRST_TOKEN + index,) * 8, params))
    while core.stats().waiting:
        core.step()
    for _ in range(3):
        core.step()
    outside, times = [], []
    for _ in range(args.runs):
        before, began = sum(decoder.seconds.values()), perf_counter()
        core.step()
        taken = perf_counter() - began
        times.append(taken)
        outside.append(taken - (sum(decoder.seconds.values()) - before))
    return Loop(
        sampling,
        args.sequences,
        median(times) * 1e3,
        median(outside) * 1e3,
        allocations(core),
    )


def allocations(core: EngineCore, count: int = 10) -> dict[str, int]:
    """Tensor memory taken in ``count`` steps, by operator, as torch's profiler sees it."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        for _ in range(count):
            core.step()
    taken = {
        event.key: event.count
        for event in recorded.key_averages()
        if event.self_cpu_memory_usage > 0
    }
    return dict(sorted(taken.items()))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--sequences", type=int, default=128)
    parser.add_argument("--contexts", type=int, nargs="+", default=[160, 1_000])
    parser.add_argument("--cache", nargs="+", default=["int8", "bfloat16"])
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure and print the tables."""
    args = arguments()
    config = load_config(resolve(args.model))
    threads = len(os.sched_getaffinity(0))
    marks = Marks(read_bandwidth(threads), product_rate(config, threads))
    found = [
        steps(args, config, marks, context, cache)
        for context in args.contexts
        for cache in args.cache
    ]
    longest = SamplingParams(temperature=0, max_tokens=4 * args.runs + 64, ignore_eos=True)
    loops = [
        loop(args, "greedy", longest),
        loop(args, "temperature 0.8", replace(longest, temperature=0.8)),
        loop(args, "temperature 0.8, top-p 0.9", replace(longest, temperature=0.8, top_p=0.9)),
    ]
    if args.json:
        print(
            json.dumps(
                {
                    "marks": asdict(marks),
                    "steps": [asdict(step) for step in found],
                    "loops": [asdict(each) for each in loops],
                }
            )
        )
        return
    print(f"{date.today()}, {platform.machine()}, {threads} threads, torch {torch.__version__}")
    print(
        f"all threads read {marks.bytes_per_second / 1e9:.1f} GB/s; the fastest int8 product runs "
        f"at {marks.flops_per_second / 1e9:,.0f} GFLOP/s"
    )
    for step in found:
        report(step)
    print("\n| sampling | step, ms | outside of the passes | | allocations in 10 steps |")
    print("|---|---|---|---|---|")
    for each in loops:
        share = each.outside_ms / each.step_ms
        taken = ", ".join(f"{n} {name}" for name, n in each.allocations.items()) or "none"
        print(
            f"| {each.sampling} | {each.step_ms:.1f} | {each.outside_ms:.2f} ms | {share:.1%} | "
            f"{taken} |"
        )


def report(step: DecodeStep) -> None:
    """Print one step's table."""
    attention, products = step.passes_ms["attention"], step.products_ms
    print(
        f"\n{step.sequences} sequences at context {step.context}, {step.cache_dtype} cache: "
        f"{step.step_ms:.1f} ms a step\n"
        f"  attention {attention:.1f} ms, {attention / step.attention_floor_ms:.2f} x the "
        f"{step.attention_floor_ms:.1f} ms that reading {step.cache_bytes / 1e6:,.0f} MB takes\n"
        f"  products {products:.1f} ms, {step.product_floor_ms / products:.0%} of the fastest "
        f"one's rate"
    )
    shares = [f"{name} {taken:.2f}" for name, taken in step.passes_ms.items()]
    print(
        f"  passes: {', '.join(shares)}; outside {step.step_ms - sum(step.passes_ms.values()):.2f}"
    )


if __name__ == "__main__":
    main()
