"""Engines over random weights of any shape, made where they are used: nothing is written.

Nothing else can load such weights: a model's path never names them.
"""

from collections.abc import Mapping
from time import perf_counter

import tokenizers
import torch
from torch import Tensor

from engine.config import EngineConfig, ModelConfig
from engine.core import EngineCore, LoadedModel
from engine.executors.runner import StepRunner
from engine.executors.start import start_runner
from engine.kernels.grouped import GroupedWeight
from engine.models.loading import ModelSource
from engine.models.names import huggingface_targets
from engine.models.staged import Stored
from engine.tokenizer import Tokenizer

_SPREAD = 0.02  # of weights, as models are initialized


class RandomCheckpoint:
    """See `engine.models.checkpoint.Checkpoint`: normal weights, and norms of 1.

    Args:
        config: whose tensors there are.
        device: where they are made.
        seed: of the numbers.
    """

    source = "random weights"

    def __init__(self, config: ModelConfig, device: torch.device, seed: int = 0) -> None:
        self._generator = torch.Generator(device).manual_seed(seed)
        self._device = device
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: target.shape for name, target in huggingface_targets(config).items()
        }

    def read(self, name: str) -> Tensor:
        """See `Checkpoint`."""
        shape = self.shapes[name]
        if "norm" in name:
            return torch.ones(shape, dtype=torch.bfloat16, device=self._device)
        rows = torch.empty(shape, dtype=torch.bfloat16, device=self._device)
        return rows.normal_(std=_SPREAD, generator=self._generator)

    def read_groups(self, name: str) -> GroupedWeight | None:
        """See `Checkpoint`."""
        return None

    def stored(self, name: str) -> Stored | None:
        """See `Checkpoint`."""
        return None


def open_engine(
    config: EngineConfig, name: str, model: ModelConfig, source: ModelSource
) -> tuple[EngineCore, StepRunner]:
    """An engine without a tokenizer: its texts are empty.

    Args:
        config: its settings.
        name: what to call it.
        model: its shape.
        source: its weights.
    """
    began = perf_counter()
    runner = start_runner(config, model, source)
    blank = Tokenizer(
        tokenizers.Tokenizer(tokenizers.models.WordLevel({"": 0}, unk_token="")),
        special_tokens={},
        chat_templates={},
    )
    loaded = LoadedModel(name, model, blank, runner, perf_counter() - began)
    return EngineCore(config, loaded), runner
