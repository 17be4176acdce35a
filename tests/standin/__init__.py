"""Engines whose tiny models run as on a GPU, and what their outputs must be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers

from engine.catalog import ModelFiles
from engine.config import EngineConfig
from engine.core import EngineCore, LoadedModel
from engine.executors.device.runner import DeviceRunner
from engine.executors.runner import StepRunner
from engine.executors.start import start_runner
from engine.kernels.fused.stand_in import StandIn
from engine.models.families import load_config
from engine.params import SamplingParams
from engine.requests import Completion, Request
from engine.tokenizer import Tokenizer
from oracle import Model

SETTINGS: dict[str, Any] = {
    "device": "stand-in",
    "dtype": "float32",
    "block_size": 4,
    "max_num_seqs": 6,
    "max_batch_tokens": 40,
    "kv_cache_bytes": 2**20,
    "max_model_len": 64,
    "seed": 5,
}


def start(model: Model, folder: Path, **settings: Any) -> EngineCore:
    """An engine for a model, which is saved in the folder first; on the stand-in unless told."""
    if not (folder / "config.json").exists():
        model.save_pretrained(folder)
    files = ModelFiles("tiny", folder, None)
    shape = load_config(files)
    config = EngineConfig(model=str(folder), **SETTINGS | settings)
    runner = start_runner(config, shape, files)
    return core_of(config, runner, folder)


def core_of(config: EngineConfig, runner: StepRunner, folder: Path) -> EngineCore:
    """An engine around a runner; its tokenizer knows words for the tokens."""
    shape = load_config(ModelFiles("tiny", folder, None))
    words = tokenizers.models.WordLevel(
        {f"w{i}": i for i in range(shape.vocab_size)}, unk_token="w0"
    )
    tokenizer = Tokenizer(tokenizers.Tokenizer(words), special_tokens={}, chat_templates={})
    return EngineCore(config, LoadedModel("tiny", shape, tokenizer, runner))


def device_of(core: EngineCore) -> StandIn:
    """The stand-in that an engine runs on."""
    assert isinstance(core.runner, DeviceRunner)
    device = core.runner.executor.device
    assert isinstance(device, StandIn)
    return device


def run(core: EngineCore, requests: Sequence[Request]) -> dict[str, Completion]:
    """Every request's completion; the engine's state is checked after every step."""
    for request in requests:
        core.add(request)
    core.flush()
    found = {}
    while core.has_work:
        for finished in core.step():
            found[finished.request.id] = finished.completion()
        core.check()
    return found


def ask(prompts: Sequence[Sequence[int]], **params: Any) -> list[Request]:
    """Greedy requests, named by their places, that end by their lengths unless told otherwise."""
    settings = {"temperature": 0.0, "ignore_eos": True, "max_tokens": 12} | params
    return [
        Request(str(index), tuple(prompt), SamplingParams(**settings))
        for index, prompt in enumerate(prompts)
    ]


@torch.no_grad()
def greedy(model: transformers.PreTrainedModel, prompt: Sequence[int], count: int) -> list[int]:
    """The ``count`` tokens that follow a prompt, each computed from all before it."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return tokens[len(prompt) :]
