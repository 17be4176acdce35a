"""Tokens a second of the engine, by workload and batching policy.

    python benchmarks/throughput.py
    python benchmarks/throughput.py --workload prefix256 --no-prefix-caching --runs 1
    python benchmarks/throughput.py --workload mixed64 --policy continuous static single

Every combination is run once to warm up and then ``--runs`` times, in turns, so that a machine that
drifts drifts for all; the median is reported. ``single`` is one request at a time.
"""

import argparse
import json
import platform
import sys
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from engine import LLM, SamplingParams

sys.path.insert(0, str(Path(__file__).parent))
from workloads import WORKLOADS, Item


@dataclass(frozen=True, slots=True)
class Figure:
    """One run. Rates are tokens a second of wall time, prompt and output tokens counted whole."""

    workload: str
    policy: str
    seconds: float
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    prompt_rate: float
    output_rate: float
    total_rate: float


def run(llm: LLM, name: str, items: list[Item], policy: str) -> Figure:
    """Run a workload once."""
    before = llm.stats()
    began = perf_counter()
    for item in items:
        params = SamplingParams(temperature=0, max_tokens=item.output_tokens, ignore_eos=True)
        llm.submit(item.prompt, params)
        if policy == "single":
            _drain(llm)
    _drain(llm)
    seconds = perf_counter() - began
    after = llm.stats()
    prompt = after.prompt_tokens - before.prompt_tokens
    output = after.output_tokens - before.output_tokens
    return Figure(
        workload=name,
        policy=policy,
        seconds=seconds,
        prompt_tokens=prompt,
        cached_tokens=after.cached_tokens - before.cached_tokens,
        output_tokens=output,
        prompt_rate=prompt / seconds,
        output_rate=output / seconds,
        total_rate=(prompt + output) / seconds,
    )


def _drain(llm: LLM) -> None:
    llm.flush()
    while llm.has_work:
        for completion in llm.step():
            if completion.error:
                raise SystemExit(f"A request failed: {completion.error}")


def engines(args: argparse.Namespace) -> dict[str, LLM]:
    """One engine a policy; ``single`` uses the continuous one."""
    return {
        policy: LLM(
            args.model,
            device=args.device,
            dtype=args.dtype,
            quantization=args.quantization,
            threads=args.threads,
            max_num_seqs=args.max_num_seqs,
            max_batch_tokens=args.max_batch_tokens,
            prefix_caching=args.prefix_caching,
            batching="continuous" if policy == "single" else policy,
        )
        for policy in args.policy
    }


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    policies = ["continuous", "dynamic", "static", "single"]
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--workload", nargs="+", choices=list(WORKLOADS), default=None)
    parser.add_argument("--policy", nargs="+", choices=policies, default=["continuous"])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--quantization", choices=("auto", "none", "int8", "int4"), default="auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--max-num-seqs", type=int)
    parser.add_argument("--max-batch-tokens", type=int)
    parser.add_argument("--prefix-caching", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--json", action="store_true", help="one JSON object a run, to stdout")
    args = parser.parse_args()
    args.workload = args.workload or ["mixed64", "prefix64"]
    return args


def main() -> None:
    """Run what the command line asks for and print the medians."""
    args = arguments()
    llms = engines(args)
    first = next(iter(llms.values()))
    print(f"{date.today()}  {platform.machine()}  torch {torch.__version__}", file=sys.stderr)
    print(first.info.description, file=sys.stderr)
    for name in args.workload:
        figures: dict[str, list[Figure]] = {policy: [] for policy in llms}
        for turn in range(args.runs + 1):
            items = WORKLOADS[name](first.info.vocab_size, turn)
            for policy, llm in llms.items():
                figure = run(llm, name, items, policy)
                if turn > 0:
                    figures[policy].append(figure)
                    if args.json:
                        print(json.dumps(asdict(figure)), flush=True)
        if not args.json:
            report(figures)


def report(figures: dict[str, list[Figure]]) -> None:
    """Print one line a policy: the run with the median total rate, and the range."""
    for policy, runs in figures.items():
        middle = median(f.total_rate for f in runs)
        shown = min(runs, key=lambda f: abs(f.total_rate - middle))
        print(
            f"{shown.workload:10} {policy:10} "
            f"prompt {shown.prompt_rate:8,.1f}  output {shown.output_rate:8,.1f}  "
            f"total {shown.total_rate:8,.1f} tok/s "
            f"(of {len(runs)} runs {min(f.total_rate for f in runs):,.1f} to "
            f"{max(f.total_rate for f in runs):,.1f}); {shown.seconds:.2f} s, "
            f"{shown.prompt_tokens} prompt tokens, {shown.cached_tokens} of them cached, "
            f"{shown.output_tokens} output tokens"
        )


if __name__ == "__main__":
    main()
