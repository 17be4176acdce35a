"""How a model is loaded."""

from dataclasses import replace

import pytest
import torch

from engine.catalog import resolve
from engine.config import EngineConfig
from engine.executors.build import matrices_at_once
from engine.executors.start import start_runner
from engine.models.families import load_config


@pytest.mark.parametrize(("hidden", "inner", "at_once"), [(576, 1536, 8), (4096, 14336, 1)])
def test_threads_that_load_have_a_small_matrix_each_and_share_large_ones(
    hidden: int, inner: int, at_once: int
) -> None:
    smollm2 = load_config(resolve("smollm2"))
    model = replace(smollm2, hidden_size=hidden, intermediate_size=inner)
    assert matrices_at_once(model, 8) == at_once


def test_steps_have_all_their_threads_again() -> None:
    files = resolve("smollm2")
    config = EngineConfig(dtype="float32", device="cpu", threads=2, kv_cache_bytes=1 << 26)
    before = torch.get_num_threads()
    try:
        start_runner(config, load_config(files), files)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
