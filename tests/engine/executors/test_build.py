"""How a model is loaded."""

from dataclasses import replace

import pytest
import torch

from engine.catalog import resolve
from engine.config import EngineConfig
from engine.executors.build import loading_threads
from engine.executors.start import start_runner
from engine.models.families import load_config


@pytest.mark.parametrize(("hidden", "inner", "threads"), [(576, 1536, 1), (4096, 14336, 8)])
def test_threads_that_load_do_not_wait_for_each_other_on_small_matrices(
    hidden: int, inner: int, threads: int
) -> None:
    smollm2 = load_config(resolve("smollm2"))
    model = replace(smollm2, hidden_size=hidden, intermediate_size=inner)
    assert loading_threads(model, 8) == threads


def test_steps_have_all_their_threads_again() -> None:
    files = resolve("smollm2")
    config = EngineConfig(dtype="float32", device="cpu", threads=2, kv_cache_bytes=1 << 26)
    before = torch.get_num_threads()
    try:
        start_runner(config, load_config(files), files)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
