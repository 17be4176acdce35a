"""The section ``correct``: the tests that need a GPU, and whole engines against transformers.

Tiny models of each family with random weights, in float32 and bfloat16, greedy. Each is run in ways
that must not change a token: prompts cut into small chunks beside decodes, prefixes taken from the
cache, a cache so small that sequences are preempted. A token is right where transformers, given the
tokens before it, scores no other one higher by more than rounding allows.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers

from engine.catalog import ModelFiles
from engine.config import EngineConfig
from engine.models.families import load_config
from engine.params import SamplingParams
from engine.requests import Request
from gpu.random_models import open_engine
from gpu.rows import Section, said
from oracle import Model, make

ROOT = Path(__file__).parents[2]
_TINY: Mapping[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "head_dim": 64,
}
_FAMILIES: Mapping[str, transformers.PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(**_TINY),
    "mistral": transformers.MistralConfig(**_TINY, sliding_window=50),
    "qwen2": transformers.Qwen2Config(**{**_TINY, "head_dim": 32}),
    "qwen3": transformers.Qwen3Config(**_TINY, tie_word_embeddings=True),
}
# How far below the best one a token's score may be, in standard deviations of all scores.
_MOST_GAP = {"float32": 1e-3, "bfloat16": 0.15}
_ANSWER = 16
_PYTEST = """[pytest]
addopts = --import-mode=importlib -p no:cacheprovider
pythonpath = {root}/tests {root}/deploy {root}/benchmarks {root}
markers =
    gpu: needs a CUDA device
    slow: takes more than a second or so
    servers: starts real servers
"""


@dataclass(frozen=True, slots=True)
class Way:
    """How an engine is run.

    Attributes:
        settings: of `EngineConfig`.
        preempts: whether sequences must have been preempted, or the way was not taken.
    """

    settings: Mapping[str, Any]
    preempts: bool = False


WAYS: Mapping[str, Way] = {
    "whole": Way({"kv_cache_bytes": 2**24, "prefix_caching": False}),
    "cached, chunked": Way({"kv_cache_bytes": 2**24, "max_batch_tokens": 48, "max_num_seqs": 48}),
    "preempted": Way({"max_num_seqs": 16, "output_reserve": 0.0}, preempts=True),
}


def run(section: Section) -> None:
    """The tests first, then every family, dtype and way that the time allows."""
    if not section.dry and section.wants("tests"):
        _tests(section)
    transformers.logging.set_verbosity_error()
    for name, config in _FAMILIES.items():
        if not section.wants(name):
            continue
        with tempfile.TemporaryDirectory() as folder:
            oracle = make(config)
            # Both dtypes hold these weights. Not the whole module: its rotary buffer would lose
            # digits that no checkpoint holds.
            for parameter in oracle.parameters():
                parameter.data = parameter.data.bfloat16().float()
            oracle.save_pretrained(folder)
            for dtype in ("float32",) if section.dry else ("float32", "bfloat16"):
                for way in WAYS:
                    if section.left > 3:
                        _parity(section, name, Path(folder), oracle, dtype, way)
                    else:
                        section.row(model=name, dtype=dtype, way=way, note="no time left")


def _tests(section: Section) -> None:
    """The tests that run on a GPU: those so marked, and all of Triton's kernels but compiling."""
    kernels = "tests/engine/kernels/triton"
    runs: dict[str, list[str]] = {
        "kernels": [kernels, f"--ignore={kernels}/test_compiled.py"],
        "marked gpu": ["-m", "gpu", *_marked(ROOT / "tests" / "engine", ROOT / kernels)],
    }
    for name, arguments in runs.items():
        with tempfile.NamedTemporaryFile("w", suffix=".ini") as file:
            file.write(_PYTEST.format(root=ROOT))
            file.flush()
            command = [sys.executable, "-m", "pytest", "-q", "-c", file.name, f"--rootdir={ROOT}"]
            try:
                done = subprocess.run(
                    [*command, *arguments],
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": str(ROOT)},
                    capture_output=True,
                    text=True,
                    timeout=max(1, section.left * 0.6),
                )
            except subprocess.TimeoutExpired:
                section.row(model="tests", way=name, note="stopped: no time left", bad=True)
                continue
        print(done.stdout[-4000:], done.stderr[-2000:], flush=True)
        lines = done.stdout.strip().splitlines()
        section.row(
            model="tests", way=name, note=lines[-1] if lines else "", bad=done.returncode != 0
        )


def _marked(folder: Path, beside: Path) -> list[str]:
    """Files with tests that need a GPU, so that no others are collected."""
    files = sorted(path for path in folder.rglob("test_*.py") if path.parent != beside)
    return [str(path) for path in files if "mark.gpu" in path.read_text()]


def prompts(vocab_size: int) -> Iterator[list[int]]:
    """Prompts of many lengths; half of them begin with one of two prefixes."""
    random = Random(3)
    tokens = [[random.randrange(vocab_size) for _ in range(length)] for length in (64, 40)]
    for index in range(24):
        own = [random.randrange(vocab_size) for _ in range(random.choice((1, 5, 17, 33, 90)))]
        yield (tokens[index % 4] if index % 4 < 2 else []) + own


def _parity(section: Section, name: str, folder: Path, oracle: Model, dtype: str, way: str) -> None:
    files = ModelFiles(name, folder, None)
    model = load_config(files)
    settings = dict(WAYS[way].settings)
    if WAYS[way].preempts:  # room for a few sequences of the longest
        settings["kv_cache_bytes"] = 24 * 16 * model.kv_bytes_per_token(4 if "32" in dtype else 2)
    config = EngineConfig(
        device=section.device, dtype=dtype, quantization="none", seed=0, **settings
    )
    try:
        core, _ = open_engine(config, name, model, files)
        params = SamplingParams(temperature=0, max_tokens=_ANSWER, ignore_eos=True)
        asked = list(prompts(model.vocab_size))
        for index, prompt in enumerate(asked):
            core.add(Request(str(index), tuple(prompt), params, ""))
        core.flush()
        equal, total, widest = 0, 0, 0.0
        while core.has_work:
            for finished in core.step():
                completion = finished.completion()
                prompt = asked[int(completion.request_id)]
                gaps = _gaps(oracle, prompt, list(completion.outputs[0].token_ids))
                equal += sum(gap == 0 for gap in gaps)
                total += len(gaps)
                widest = max(widest, *gaps)
    except Exception as error:  # noqa: BLE001, whatever it is, the other ways are to be tried
        section.row(model=name, dtype=dtype, way=way, bad=True, note=said(error))
        return
    stats = core.stats()
    taken = {"cached, chunked": stats.cached_tokens > 0, "preempted": stats.preemptions > 0}
    section.row(
        model=name,
        dtype=dtype,
        way=way,
        equal=f"{equal} of {total}",
        gap=f"{widest:.1e}",
        note=f"{stats.cached_tokens} cached, {stats.preemptions} preempted",
        bad=widest > _MOST_GAP[dtype] or total != len(asked) * _ANSWER or not taken.get(way, True),
    )


@torch.inference_mode()
def _gaps(oracle: Model, prompt: list[int], answer: list[int]) -> list[float]:
    """Of each token: how far its score is below the best one's."""
    scores = oracle(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    chosen = scores.gather(1, torch.tensor(answer)[:, None])[:, 0]
    gaps: list[float] = ((scores.amax(1) - chosen) / scores.std(1)).tolist()
    return gaps
