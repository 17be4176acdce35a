"""What is run before the first request: every kind of step, and nothing that stays."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from engine.executors import choose
from engine.executors.device import build
from engine.executors.device.runner import DeviceRunner
from engine.executors.device.warm_up import Kinds, steps, warm_up
from engine.kernels.fused.device import Launches
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.reference.stand_in import StandInBackend
from engine.sampling.device_sampler import DeviceSampler
from oracle import make
from standin import ask, device_of, greedy, run, start

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
]

LLAMA = transformers.LlamaConfig(
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=1,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=1024,
)
SIZE: dict[str, Any] = {
    "max_model_len": 1024,
    "max_num_seqs": 20,
    "max_batch_tokens": 600,
    "block_size": 16,
    "kv_cache_bytes": 2**22,
}


def test_it_runs_every_kind_of_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[AttentionTasks] = []
    plain: list[bool] = []
    make_tasks, is_plain = TaskMaker.make, DeviceSampler.plain

    def noted(self: TaskMaker, *arguments: Any, **named: Any) -> AttentionTasks:
        made.append(make_tasks(self, *arguments, **named))
        return made[-1]

    def asked(self: DeviceSampler, slots: Any) -> bool:
        plain.append(is_plain(self, slots))
        return plain[-1]

    monkeypatch.setattr(TaskMaker, "make", noted)
    monkeypatch.setattr(DeviceSampler, "plain", asked)
    start(make(LLAMA), tmp_path, **SIZE)

    assert max(tasks.segment_tiles for tasks in made) > 0
    assert {tasks.splits > 1 for tasks in made} == {False, True}
    assert max(tasks.prefill_tiles for tasks in made) > 0
    assert {1, 2, 8, 16, 20} <= {tasks.num_decodes for tasks in made}
    assert set(plain) == {True, False}


def test_its_steps_keep_to_the_bounds(tmp_path: Path) -> None:
    core = start(make(LLAMA), tmp_path, **SIZE)
    assert isinstance(core.runner, DeviceRunner)
    placement = core.runner.placement
    tokens = []
    for step in steps(core.runner):
        tokens.append(step.num_tokens)
        assert step.num_tokens <= placement.max_batch_tokens
        assert len({work.slot for work in step.works}) == len(step.works)
        for work in step.works:
            assert work.slot < placement.max_num_seqs
            assert work.start + len(work.token_ids) < placement.max_model_len
            assert all(block < placement.num_blocks for block in work.new_blocks)
    assert max(tokens) == placement.max_batch_tokens
    assert Kinds(core.runner).next().works[0].start >= 500


def test_requests_find_nothing_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(LLAMA)
    warmed: list[DeviceRunner] = []
    monkeypatch.setattr(build, "warm_up", lambda runner: warmed.append(runner))
    start(model, tmp_path, **SIZE, warm_up=False)
    assert warmed == []
    monkeypatch.undo()
    core = start(model, tmp_path, **SIZE)
    prompts = [[1] * 40, [5, 9, 2]]
    found = run(core, ask(prompts, max_tokens=6))
    for index, prompt in enumerate(prompts):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 6)
    assert found["0"].cached_tokens == 0


def test_kernels_are_compiled_before_the_first_step_and_nothing_else_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(LLAMA)
    plain = start(model, tmp_path, **SIZE)
    noted: list[DeviceRunner] = []

    class Compiling(StandInBackend):
        def compile_ahead(self, work: Launches, threads: int) -> str:
            assert not noted, "no step ran before"
            work()
            assert threads == torch.get_num_threads()
            return "7 kernels compiled"

    def noting(runner: DeviceRunner) -> None:
        noted.append(runner)
        warm_up(runner)

    monkeypatch.setattr(choose, "StandInBackend", Compiling)
    monkeypatch.setattr(build, "warm_up", noting)
    core = start(model, tmp_path, **SIZE)

    assert len(noted) == 2, "once to see what is launched, once to run it"
    ahead, warmed = noted
    assert len(ahead.executor._recorded) == 0
    assert ahead.executor.max_recorded_tokens == warmed.executor.max_recorded_tokens
    assert len(warmed.executor._recorded) > 0
    assert "7 kernels compiled" in core.info.reasons
    assert not any("compiled" in reason for reason in plain.info.reasons)
    prompts = [[1] * 40, [5, 9, 2]]
    found, expected = (run(each, ask(prompts, max_tokens=6)) for each in (core, plain))
    assert {k: v.outputs[0].token_ids for k, v in found.items()} == {
        k: v.outputs[0].token_ids for k, v in expected.items()
    }
    assert device_of(core).recorded == device_of(plain).recorded


def test_a_context_of_a_few_tokens_is_warmed_up_too(tmp_path: Path) -> None:
    core = start(make(LLAMA), tmp_path, max_model_len=8, block_size=4)
    assert run(core, ask([[1, 2, 3]], max_tokens=3))["0"].completion_tokens == 3
