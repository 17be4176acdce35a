"""How a model is loaded."""

from dataclasses import replace

import pytest
import torch

from engine.catalog import resolve
from engine.config import STAND_IN, EngineConfig
from engine.executors import placement
from engine.executors.build import matrices_at_once
from engine.executors.choose import choose
from engine.executors.machine import GIB
from engine.executors.placement import place
from engine.executors.start import start_runner
from engine.models.families import load_config


@pytest.mark.parametrize(
    ("hidden", "inner", "threads", "at_once"),
    [(576, 1536, 2, 2), (576, 1536, 64, 8), (4096, 14336, 64, 1)],
)
def test_threads_that_load_have_a_small_matrix_each_and_share_large_ones(
    hidden: int, inner: int, threads: int, at_once: int
) -> None:
    smollm2 = load_config(resolve("smollm2"))
    model = replace(smollm2, hidden_size=hidden, intermediate_size=inner)
    choice = choose(EngineConfig(device="cpu", threads=threads), smollm2)
    assert matrices_at_once(model, choice) == at_once


def test_a_device_is_given_one_matrix_after_the_other() -> None:
    smollm2 = load_config(resolve("smollm2"))
    choice = choose(EngineConfig(device=STAND_IN, threads=8), smollm2)
    assert matrices_at_once(smollm2, choice) == 1
    assert matrices_at_once(smollm2, replace(choice, device=torch.device("cuda"))) == 1


def test_steps_have_all_their_threads_again() -> None:
    files = resolve("smollm2")
    config = EngineConfig(dtype="float32", device="cpu", threads=2, kv_cache_bytes=1 << 26)
    before = torch.get_num_threads()
    try:
        start_runner(config, load_config(files), files)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_mapped_weights_are_not_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    smollm2 = load_config(resolve("smollm2"))
    config = EngineConfig(device="cpu")
    choice = choose(config, smollm2)
    monkeypatch.setattr(placement, "free_memory", lambda _: GIB)
    all_free = place(config, smollm2, choice)
    half_mapped = place(config, smollm2, choice, mapped=GIB // 2)
    assert half_mapped.num_blocks == all_free.num_blocks // 2
    assert "0.5 GiB free" in half_mapped.reasons[-1]
