"""What the engine keeps of its speed on a CPU that it shares with other programs.

    python benchmarks/neighbours.py
    python benchmarks/neighbours.py --neighbour loops --sequences 4 --rounds 5
    python benchmarks/neighbours.py --through process --json

Batches run alone and beside a neighbour in turns, in one run and with one engine, so that a
machine that drifts drifts for both. Printed are the medians in output tokens a second, and what
share of the calm speed is left. Neighbours:

- ``loops``: a busy loop for each CPU, of the same priority.
- ``loops-nice``: the same at nice 10.
- ``barriers-nice``: a program of as many threads that meet some ten thousand times a second, at
  nice 10.
- ``engine``: a second engine of ours, of the same priority, that always has work.
"""

import argparse
import atexit
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from statistics import median
from time import perf_counter

from engine import LLM, SamplingParams
from engine.config import EngineConfig
from engine.process.client import EngineProcess
from engine.requests import Request

CPUS = len(os.sched_getaffinity(0))
FIRST_TOKEN = 100  # below lie special tokens
PROMPT, TOKENS = 32, {4: 256, 48: 96}
LOOP = "while True: pass"
BARRIERS = f"""
import torch
torch.set_num_threads({CPUS})
x = torch.randn({CPUS} * 40_000)
while True:
    x.mul_(1.0)
"""
ENGINE = """
from engine import LLM, SamplingParams
llm = LLM("smollm2")
print("ready", flush=True)
while True:
    llm.generate([[100 + i] * 32 for i in range(24)],
                 SamplingParams(temperature=0, max_tokens=128, ignore_eos=True), progress=False)
"""
# Each neighbour's programs: code, how many of it, and its niceness.
NEIGHBOURS = {
    "loops": (LOOP, CPUS, 0),
    "loops-nice": (LOOP, CPUS, 10),
    "barriers-nice": (BARRIERS, 1, 10),
    "engine": (ENGINE, 1, 0),
}
Run = Callable[[int, int, int], float]


@contextmanager
def neighbour(name: str) -> Iterator[None]:
    """Have a neighbour for the time of a ``with`` block."""
    code, count, niceness = NEIGHBOURS[name]
    command = ["nice", "-n", str(niceness), sys.executable, "-c", code]
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(count)]
    try:
        for other in others:
            if "print" in code and other.stdout is not None:
                other.stdout.readline()
        time.sleep(2.0)
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def requests(vocab: int, count: int, seed: int) -> list[list[int]]:
    """Prompts of random tokens, other ones for every seed."""
    draw = Random(seed)
    return [[draw.randrange(FIRST_TOKEN, vocab) for _ in range(PROMPT)] for _ in range(count)]


def params(tokens: int) -> SamplingParams:
    """Greedy, to the last token."""
    return SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)


def through_llm(model: str) -> Run:
    """The engine in this process."""
    llm = LLM(model)
    print(llm.info.description, file=sys.stderr)

    def run(count: int, tokens: int, seed: int) -> float:
        prompts = requests(llm.info.vocab_size, count, seed)
        began = perf_counter()
        llm.generate(prompts, params(tokens), progress=False)
        return count * tokens / (perf_counter() - began)

    return run


def through_process(model: str) -> Run:
    """The engine in a process of its own, as workers and ``tidemill run`` have it."""
    engine = EngineProcess(EngineConfig(model=model))
    info = engine.start()
    atexit.register(engine.close)
    print(info.description, file=sys.stderr)

    def run(count: int, tokens: int, seed: int) -> float:
        prompts = requests(info.vocab_size, count, seed)
        began = perf_counter()
        engine.submit(
            [Request(f"{seed}-{i}", tuple(p), params(tokens)) for i, p in enumerate(prompts)]
        )
        engine.flush()
        left = count
        while left:
            left -= len(engine.poll(1.0))
        return count * tokens / (perf_counter() - began)

    return run


def measure(run: Run, name: str, count: int, rounds: int) -> dict[str, object]:
    """One neighbour and one size of batch, in turns."""
    calm: list[float] = []
    beside: list[float] = []
    tokens = TOKENS.get(count, 96)
    run(count, tokens, 0)
    for turn in range(1, rounds + 1):
        calm.append(run(count, tokens, 2 * turn))
        with neighbour(name):
            beside.append(run(count, tokens, 2 * turn + 1))
    return {
        "neighbour": name,
        "sequences": count,
        "calm": median(calm),
        "beside": median(beside),
        "share": median(beside) / median(calm),
        "calm_runs": calm,
        "beside_runs": beside,
    }


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--neighbour", nargs="+", choices=list(NEIGHBOURS), default=None)
    parser.add_argument("--sequences", nargs="+", type=int, default=[4, 48])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--through", choices=("llm", "process"), default="llm")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args()
    run = (through_llm if args.through == "llm" else through_process)(args.model)
    for name in args.neighbour or NEIGHBOURS:
        for count in args.sequences:
            found = measure(run, name, count, args.rounds)
            if args.json:
                print(json.dumps(found), flush=True)
                continue
            print(
                f"{name:14} {count:3} sequences: calm {found['calm']:7,.0f}, "
                f"beside {found['beside']:7,.0f} tok/s, {found['share']:6.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
