"""Where a decode step's time goes: each pass, against what the machine can do at best.

    python benchmarks/step.py
    python benchmarks/step.py --sequences 16 --contexts 160 --cache bfloat16

First steps of so many sequences at each context, on a cache that is full of numbers, with every
pass timed inside the kernels. In turns with them the machine's marks are measured: how fast all
threads together read memory, and the fastest of the model's own products with many rows. Products
are given as their share of that rate, attention as its multiple of the time that reading its keys
and values takes. Then the engine as it runs: what a step spends outside of the passes, which is
Python, the segments of attention and, where tokens are drawn, the drawing; and what it allocates,
as torch's profiler sees it. All are medians.
"""

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass, replace
from datetime import date
from statistics import median
from time import perf_counter
from typing import get_args

import torch
from marks import Marks
from torch.profiler import ProfilerActivity, profile

from engine import SamplingParams
from engine.catalog import resolve
from engine.config import CacheDtype, EngineConfig, ModelConfig
from engine.core import EngineCore
from engine.executors.build import Built, build
from engine.executors.executor import Executor
from engine.executors.native_executor import NativeExecutor
from engine.kernels.native.cache import TILE, tile_bytes
from engine.models.families import load_config
from engine.requests import Request
from engine.scheduler.step import Admission, Step, Work

FILL = 60  # of every byte of a cache: small numbers in bfloat16, in int8 and as scales
FIRST_TOKEN = 100
PRODUCTS = ("qkv", "output", "gate and up", "down", "head")


@dataclass(frozen=True, slots=True)
class DecodeStep:
    """Steps of ``sequences`` decodes at one context: medians, times in milliseconds."""

    sequences: int
    context: int
    cache_dtype: str
    step_ms: float
    passes_ms: dict[str, float]
    cache_bytes: int
    bytes_per_second: float
    product_flops: float
    flops_per_second: float

    @property
    def products_ms(self) -> float:
        """All matrix products."""
        return sum(self.passes_ms[name] for name in PRODUCTS)

    @property
    def attention_floor_ms(self) -> float:
        """What reading the keys and values takes."""
        return self.cache_bytes / self.bytes_per_second * 1e3

    @property
    def product_floor_ms(self) -> float:
        """What the products take at the fastest one's rate."""
        return self.product_flops / self.flops_per_second * 1e3


@dataclass(frozen=True, slots=True)
class Loop:
    """The engine's own steps of ``sequences`` decodes."""

    sampling: str
    sequences: int
    step_ms: float
    outside_ms: float
    allocations: dict[str, int]


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


def engine_at(
    name: str, config: ModelConfig, sequences: int, context: int, cache: CacheDtype
) -> Built:
    """A model whose cache holds so many contexts."""
    blocks = sequences * -(-context // 16)
    per_token = max(2 * config.num_kv_heads * (config.head_dim * 4 + 4) * config.num_layers, 1)
    settings = EngineConfig(
        model=name,
        device="cpu",
        max_num_seqs=sequences,
        kv_cache_dtype=cache,
        kv_cache_bytes=(blocks + 1) * 16 * per_token,
    )
    return build(settings, config, resolve(name))


def fill(built: Built, sequences: int, context: int) -> None:
    """Lay out a step of one token for each sequence."""
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


def steps(
    args: argparse.Namespace, config: ModelConfig, marks: Marks, context: int, cache: CacheDtype
) -> DecodeStep:
    """Measure steps at one context with one kind of cache, in turns with the machine's marks."""
    count = args.sequences
    built = engine_at(args.model, config, count, context, cache)
    decoder = native(built.executor).decoder
    decoder.cache.fill(FILL)
    fill(built, count, context)
    times, reads, rates = [], [], []
    passes: dict[str, list[float]] = {name: [] for name in decoder.seconds}
    for run in range(args.runs + 3):
        read, rate = marks.bytes_per_second(), marks.flops_per_second()
        before, began = decoder.seconds, perf_counter()
        built.executor.execute(built.inputs, logits=False)
        taken = perf_counter() - began
        if run < 3:
            continue
        times.append(taken)
        reads.append(read)
        rates.append(rate)
        for name, seconds in decoder.seconds.items():
            passes[name].append(seconds - before[name])
    dtype = built.placement.choice.cache_dtype
    tiles = count * -(-context // TILE) * config.num_kv_heads * config.num_layers
    return DecodeStep(
        sequences=count,
        context=context,
        cache_dtype=str(dtype).removeprefix("torch."),
        step_ms=median(times) * 1e3,
        passes_ms={name: median(each) * 1e3 for name, each in passes.items()},
        cache_bytes=tiles * tile_bytes(config.head_dim, dtype),
        bytes_per_second=median(reads),
        product_flops=2.0 * count * weights_of(config),
        flops_per_second=median(rates),
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
    parser.add_argument(
        "--cache", nargs="+", choices=get_args(CacheDtype), default=["int8", "bfloat16"]
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Measure and print the tables."""
    args = arguments()
    config = load_config(resolve(args.model))
    threads = len(os.sched_getaffinity(0))
    marks = Marks(config, threads)
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
                    "steps": [asdict(step) for step in found],
                    "loops": [asdict(each) for each in loops],
                }
            )
        )
        return
    print(f"{date.today()}, {platform.machine()}, {threads} threads, torch {torch.__version__}")
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
        f"{step.attention_floor_ms:.1f} ms that reading {step.cache_bytes / 1e6:,.0f} MB takes at "
        f"{step.bytes_per_second / 1e9:.1f} GB/s\n"
        f"  products {products:.1f} ms, {step.product_floor_ms / products:.0%} of the fastest "
        f"one's rate, {step.flops_per_second / 1e9:,.0f} GFLOP/s"
    )
    shares = [f"{name} {taken:.2f}" for name, taken in step.passes_ms.items()]
    print(
        f"  passes: {', '.join(shares)}; outside {step.step_ms - sum(step.passes_ms.values()):.2f}"
    )


if __name__ == "__main__":
    main()
