"""The section ``correct``: the tests that need a GPU, and whole engines against transformers.

Tiny models of each family with random weights, in float32 and bfloat16, greedy. Each is run in ways
that must not change a token (`gpu.ways`), and every way says how it is known to have been taken. A
token is right where transformers, given the tokens before it, scores no other one higher by more
than rounding allows; in float32 all are its own.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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
from gpu.rows import Section
from gpu.ways import FAMILIES, MOST_GAP, WAYS, Way, watch
from oracle import Model, make

ROOT = Path(__file__).parents[2]
_ANSWER = 16
_TOY_PROMPTS = 9
_PYTEST = """[pytest]
addopts = --import-mode=importlib -p no:cacheprovider
pythonpath = {root}/tests {root}/deploy {root}/benchmarks {root}
markers =
    gpu: needs a CUDA device
    slow: takes more than a second or so
    servers: starts real servers
"""


def run(section: Section) -> None:
    """The tests first, then every way, family and dtype that the time allows."""
    if not section.dry:
        _tests(section)
    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        oracles: dict[str, Model] = {}
        for way, name, dtype in combinations("qwen3" if section.dry else ""):
            unit = f"{name} {dtype} {way}"
            if not section.begins(unit):
                continue
            home = Path(folder) / name
            if name not in oracles:
                oracles[name] = _save(name, home)
            try:
                columns = _parity(section, home, oracles[name], dtype, WAYS[way])
            except Exception as error:  # noqa: BLE001, whatever it is, the others are to be tried
                section.failed(error, model=name, dtype=dtype, way=way)
                continue
            section.row(model=name, dtype=dtype, way=way, **columns)
    section.end(model="skipped")


def combinations(only: str = "") -> Iterator[tuple[str, str, str]]:
    """Ways, families and dtypes, in the order in which they are tried.

    Args:
        only: one family where it will do, in one dtype each way.
    """
    for way, how in WAYS.items():
        for name in [only] if only in how.families else how.families:
            for dtype in how.dtypes[:1] if only else how.dtypes:
                yield way, name, dtype


def _save(name: str, folder: Path) -> Model:
    """A model of random weights that both dtypes hold, in a folder of its own."""
    oracle = make(FAMILIES[name])
    # Not the whole module: its rotary buffer would lose digits that no checkpoint holds.
    for parameter in oracle.parameters():
        parameter.data = parameter.data.bfloat16().float()
    oracle.save_pretrained(folder)
    return oracle


def _tests(section: Section) -> None:
    """The tests that run on a GPU: those so marked, and all of Triton's kernels but compiling."""
    kernels = "tests/engine/kernels/triton"
    runs: dict[str, list[str]] = {
        "kernels": [kernels, f"--ignore={kernels}/test_compiled.py"],
        "marked gpu": ["-m", "gpu", *_marked(ROOT / "tests" / "engine", ROOT / kernels)],
    }
    for name, arguments in runs.items():
        if not section.begins(f"tests {name}", needs=10, limit=section.left + 5):
            continue
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
                    timeout=max(1, section.left * 0.4),
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


def prompts(vocab_size: int) -> list[list[int]]:
    """Prompts of many lengths; half of them begin with one of two prefixes."""
    random = Random(3)
    tokens = [[random.randrange(vocab_size) for _ in range(length)] for length in (64, 40)]
    found = []
    for index in range(24):
        own = [random.randrange(vocab_size) for _ in range(random.choice((1, 5, 17, 33, 90)))]
        found.append((tokens[index % 4] if index % 4 < 2 else []) + own)
    return found


def in_groups(vocab_size: int) -> list[list[int]]:
    """Two groups of prompts with long prefixes in common, one with a longer one in the middle."""
    random = Random(4)

    def some(count: int) -> list[int]:
        return [random.randrange(vocab_size) for _ in range(count)]

    first, second, more = some(300), some(520), some(270)
    found = [first + some(1 + index % 7 * 9) for index in range(9)]
    found += [first + more + some(1 + index % 5 * 11) for index in range(9)]
    return found + [second + some(1 + index % 3 * 20) for index in range(8)]


def _parity(section: Section, folder: Path, oracle: Model, dtype: str, way: Way) -> dict[str, Any]:
    """The columns of a row."""
    answer = 4 if section.dry and not way.preempts else _ANSWER
    files = ModelFiles(folder.name, folder, None)
    model = load_config(files)
    settings = {"quantization": "none", "dtype": dtype, **way.settings}
    if way.preempts:  # room for a few sequences of the longest
        size = 4 if dtype == "float32" else 2
        settings["kv_cache_bytes"] = 24 * 16 * model.kv_bytes_per_token(size)
    config = EngineConfig(device=section.device, seed=0, **settings)
    core, runner = open_engine(config, folder.name, model, files)
    seen = watch(runner)
    asked = (in_groups if way.shares else prompts)(model.vocab_size)
    if section.dry and not way.preempts:
        asked = asked[:_TOY_PROMPTS]
    params = SamplingParams(temperature=0, max_tokens=answer, ignore_eos=True)
    for index, prompt in enumerate(asked):
        core.add(Request(str(index), tuple(prompt), params, ""))
    core.flush()
    gaps: list[float] = []
    while core.has_work:
        for finished in core.step():
            completion = finished.completion()
            prompt = asked[int(completion.request_id)]
            gaps += _gaps(oracle, prompt, list(completion.outputs[0].token_ids))
    stats = core.stats()
    equal = sum(gap == 0 for gap in gaps)
    widest, mean = max(gaps, default=0.0), sum(gaps) / max(1, len(gaps))
    found_gap, most = (widest, MOST_GAP[dtype]) if way.most_mean is None else (mean, way.most_mean)
    faults = {
        f"a gap above {most}": not found_gap <= most,
        "tokens are missing": len(gaps) != len(asked) * answer,
        "tokens differ": dtype == "float32" and way.most_mean is None and equal < len(gaps),
        "nothing came from the cache": way.caches and not stats.cached_tokens,
        "nothing was preempted": way.preempts and not stats.preemptions,
        "no segments": way.segments is True and not seen.segments,
        "segments": way.segments is False and seen.segments > 0,
        "no graphs": way.settings.get("graphs", True) and not seen.graphs(),
        "graphs": not way.settings.get("graphs", True) and seen.graphs() > 0,
    }
    found = [fault for fault, is_so in faults.items() if is_so]
    return {
        "equal": f"{equal} of {len(gaps)}",
        "gap": f"{widest:.1e}, {mean:.1e} on average",
        "note": "; ".join(found),
        "bad": bool(found),
        "seen": f"{stats.cached_tokens} cached, {stats.preemptions} preempted, "
        f"{seen.segments} of {seen.divisions} divisions with segments, {seen.graphs()} graphs",
    }


@torch.inference_mode()
def _gaps(oracle: Model, prompt: list[int], answer: list[int]) -> list[float]:
    """Of each token: how far its score is below the best one's."""
    scores = oracle(torch.tensor([[*prompt, *answer]])).logits[0, len(prompt) - 1 : -1]
    chosen = scores.gather(1, torch.tensor(answer)[:, None])[:, 0]
    gaps: list[float] = ((scores.amax(1) - chosen) / scores.std(1)).tolist()
    return gaps
