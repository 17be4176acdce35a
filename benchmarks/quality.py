"""What each way to keep weights and cache costs in quality, on real text.

    python benchmarks/quality.py
    python benchmarks/quality.py --model ~/models/my-model --tokens 50000 --modes int8 int4

Every mode reads the same texts; the reference is bfloat16 throughout. The columns: perplexity of
the text and how far it is from the reference's; the mean Kullback-Leibler divergence of the mode's
distribution from the reference's, in nats a token; and how often both have the same most probable
token. The text is docstrings of Python's standard library.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from engine.catalog import ModelFiles, resolve
from engine.config import EngineConfig, ModelConfig
from engine.executors.build import build
from engine.executors.choose import choose
from engine.executors.device.runner import DeviceRunner
from engine.executors.start import start_runner
from engine.kernels.fused.backend import DeviceBackend
from engine.models.families import load_config
from engine.params import SamplingParams
from engine.scheduler.step import Admission, Step, Work
from engine.tokenizer import Tokenizer, load_tokenizer

sys.path.insert(0, str(Path(__file__).parent))
from texts import docstrings

Score = Callable[[Step], Tensor]

REFERENCE = "bfloat16"
MODES: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    REFERENCE: {"quantization": "none", "dtype": "bfloat16"},
    "bfloat16, int8 cache": {
        "quantization": "none",
        "dtype": "bfloat16",
        "kv_cache_dtype": "int8",
    },
    "int8": {"quantization": "int8", "kv_cache_dtype": "bfloat16"},
    "int8, int8 cache": {"quantization": "int8", "kv_cache_dtype": "int8"},
    "int4 of the file": {"quantization": "int4", "kv_cache_dtype": "bfloat16"},
    "int4 of the file, int8 cache": {"quantization": "int4", "kv_cache_dtype": "int8"},
    "int4 RTN, groups of 32": {
        "quantization": "int4",
        "group_size": 32,
        "kv_cache_dtype": "bfloat16",
    },
    "int4 RTN, groups of 32, symmetric": {
        "quantization": "int4",
        "group_size": 32,
        "symmetric": True,
        "kv_cache_dtype": "bfloat16",
    },
    "int4 RTN, groups of 64": {
        "quantization": "int4",
        "group_size": 64,
        "kv_cache_dtype": "bfloat16",
    },
    "int4 RTN, whole channels": {
        "quantization": "int4",
        "group_size": -1,
        "kv_cache_dtype": "bfloat16",
    },
}
GPU_MODES: dict[str, dict[str, Any]] = {
    REFERENCE: MODES[REFERENCE],
    "bfloat16, fp8 cache": {
        "quantization": "none",
        "dtype": "bfloat16",
        "kv_cache_dtype": "fp8",
    },
    "fp8": {"quantization": "fp8", "kv_cache_dtype": "bfloat16"},
    "fp8, fp8 cache": {"quantization": "fp8", "kv_cache_dtype": "fp8"},
    **{name: mode for name, mode in MODES.items() if name not in ("float32", REFERENCE)},
}
SHORTEST, LONGEST = 200, 1_024


@dataclass(slots=True)
class Tally:
    """Sums over tokens."""

    tokens: int = 0
    surprise: float = 0.0
    divergence: float = 0.0
    agreed: int = 0

    def add(self, scores: Tensor, reference: Tensor, token_ids: list[int]) -> None:
        """Count one text: log-probabilities [T, vocab] of the mode and of the reference."""
        following = torch.tensor(token_ids[1:], device=scores.device)[:, None]
        self.tokens += len(token_ids) - 1
        self.surprise -= float(scores[:-1].gather(1, following).sum())
        ours, theirs = scores[:-1], reference[:-1]
        self.divergence += float((theirs.exp() * (theirs - ours)).sum())
        self.agreed += int((ours.argmax(-1) == theirs.argmax(-1)).sum())

    @property
    def perplexity(self) -> float:
        """e to the mean surprise."""
        return math.exp(self.surprise / self.tokens)


def pick(tokenizer: Tokenizer, tokens: int) -> list[list[int]]:
    """Token ids of texts, ``tokens`` in all or a little more."""
    encoded = tokenizer.encode_batch(list(docstrings()))
    long = [ids[:LONGEST] for ids in encoded if len(ids) >= SHORTEST]
    Random(0).shuffle(long)
    picked: list[list[int]] = []
    while long and sum(map(len, picked)) < tokens:
        picked.append(long.pop())
    return picked


@torch.inference_mode()
def log_probabilities(score: Score, token_ids: list[int], block_size: int) -> Tensor:
    """float32 [T, vocab] of the tokens after each."""
    blocks = tuple(range(-(-len(token_ids) // block_size)))
    prompt = tuple(token_ids)
    start = Admission(SamplingParams(), 0, prompt, ())  # the slot begins anew
    step = Step((Work(0, 0, prompt, blocks, sample=False, admission=start),))
    return torch.log_softmax(score(step), -1)


def open_model(settings: EngineConfig, config: ModelConfig, files: ModelFiles) -> Score:
    """What gives the logits of all tokens of a step, as the engine computes them here."""
    choice = choose(settings, config)
    if isinstance(choice.backend, DeviceBackend):
        runner = start_runner(settings, config, files)
        assert isinstance(runner, DeviceRunner)
        return runner.score
    built = build(settings, config, files, choice)

    def score(step: Step) -> Tensor:
        built.inputs.fill(step)
        scores: Tensor = built.executor.score(built.inputs)
        return scores

    return score


def measure(args: argparse.Namespace) -> dict[str, Tally]:
    """Every mode over every text."""
    files = resolve(args.model)
    config, tokenizer = load_config(files), load_tokenizer(files)
    texts = pick(tokenizer, args.tokens)
    modes = MODES | GPU_MODES
    names = [name for name in modes if name in (REFERENCE, *args.modes)]
    scores_of = {}
    for name in names:
        settings = EngineConfig(
            model=args.model,
            device=args.device,
            max_batch_tokens=LONGEST,
            kv_cache_bytes=256 * 2**20,
            **modes[name],
        )
        scores_of[name] = open_model(settings, config, files)
    tallies = {name: Tally() for name in names}
    for number, token_ids in enumerate(texts):
        reference = log_probabilities(scores_of[REFERENCE], token_ids, settings.block_size)
        for name in names:
            scores = reference
            if name != REFERENCE:
                scores = log_probabilities(scores_of[name], token_ids, settings.block_size)
            tallies[name].add(scores, reference, token_ids)
        print(f"\r{number + 1} of {len(texts)} texts", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return tallies


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--modes", nargs="+", default=list(MODES), choices=list(MODES | GPU_MODES))
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    tallies = measure(args)
    base = tallies[REFERENCE].perplexity
    rows = {
        name: {
            "perplexity": tally.perplexity,
            "change": tally.perplexity / base - 1,
            "divergence": tally.divergence / tally.tokens,
            "agreement": tally.agreed / tally.tokens,
        }
        for name, tally in tallies.items()
    }
    if args.json:
        print(json.dumps({"tokens": tallies[REFERENCE].tokens, "modes": rows}))
        return
    print(f"{tallies[REFERENCE].tokens} tokens")
    print("| mode | perplexity | change | mean KL | same first token |")
    print("|---|---|---|---|---|")
    for name, row in rows.items():
        print(
            f"| {name} | {row['perplexity']:.3f} | {row['change']:+.2%} | "
            f"{row['divergence']:.5f} | {row['agreement']:.1%} |"
        )


if __name__ == "__main__":
    main()
