"""A whole model in Triton's kernels: in the interpreter, or on a GPU where there is one."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

pytest.importorskip("triton")

from engine.catalog import ModelFiles
from engine.config import EngineConfig
from engine.executors import choose
from engine.executors.device.buffers import Buffers
from engine.executors.device.decoder import DeviceDecoder
from engine.executors.device.runner import DeviceRunner
from engine.executors.start import start_runner
from engine.kernels.fused import task_maker as task_making
from engine.kernels.fused.backend import Limits
from engine.kernels.fused.device import Device, Launches
from engine.kernels.fused.kernels import FusedKernels
from engine.kernels.fused.sampling import SamplingKernels
from engine.kernels.fused.sharing import Sharing
from engine.kernels.fused.task_maker import TaskMaker
from engine.kernels.fused.tasks import AttentionTasks
from engine.kernels.fused.tensors import LayerCache, StepTensors
from engine.kernels.reference.stand_in import StandInBackend
from engine.kernels.triton.fused import TritonFused, task_maker
from engine.kernels.triton.launch import INTERPRETED, collect
from engine.kernels.triton.sampling.sampling import TritonSampling
from engine.models.families import load_config
from engine.params import SamplingParams
from engine.scheduler.step import Admission, Step, Work
from oracle import make
from standin import SETTINGS, ask, greedy, run, start

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:transformers"),
    # The interpreter reads what it masks.
    pytest.mark.filterwarnings("ignore::RuntimeWarning:triton"),
]

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 1,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, transformers.PreTrainedConfig] = {
    "llama": transformers.LlamaConfig(**SHAPE),
    "qwen2": transformers.Qwen2Config(**SHAPE),
    "qwen3": transformers.Qwen3Config(**SHAPE, head_dim=16, tie_word_embeddings=True),
    "mistral": transformers.MistralConfig(**SHAPE, sliding_window=5),
}
DEVICE = "stand-in" if INTERPRETED else "cuda"
PROMPT = (3, 60, 11, 42, 7, 7, 0, 33, 19)


class InterpretedBackend(StandInBackend):
    """The stand-in's queue and Triton's kernels."""

    def task_maker(self, device: Device, limits: Limits) -> TaskMaker:
        return task_maker(device.torch_device, limits)

    def passes(self, device: Device, limits: Limits, max_pieces: int) -> FusedKernels:
        return TritonFused(device.torch_device, limits, max_pieces)

    def sampling(self, device: Device) -> SamplingKernels:
        return TritonSampling()


@pytest.fixture
def triton_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    if INTERPRETED:
        monkeypatch.setattr(choose, "StandInBackend", InterpretedBackend)


def scores(folder: Path, device: str, **settings: Any) -> torch.Tensor:
    """Logits after every token of `PROMPT`, the last four in a second step."""
    files = ModelFiles("tiny", folder, None)
    config = EngineConfig(
        model=str(folder), **SETTINGS | {"device": device, "warm_up": False} | settings
    )
    runner = start_runner(config, load_config(files), files)
    assert isinstance(runner, DeviceRunner)
    first, last = PROMPT[:5], PROMPT[5:]
    admission = Admission(SamplingParams(), 0, PROMPT, ())
    begun = runner.score(Step((Work(2, 0, first, (9, 4), True, admission),)))
    found = runner.score(Step((Work(2, 5, last, (7,), True),)))
    return torch.cat((begun, found)).cpu()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_gives_the_oracles_logits(name: str, triton_kernels: None, tmp_path: Path) -> None:
    model = make(FAMILIES[name])
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([PROMPT])).logits[0]
    torch.testing.assert_close(scores(tmp_path, DEVICE), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"quantization": "int8", "kv_cache_dtype": "int8"},
        {"quantization": "fp8", "kv_cache_dtype": "fp8"},
        {"quantization": "int4"},
        {"quantization": "int4", "group_size": -1, "symmetric": True},
    ],
    ids=str,
)
def test_few_bits_are_rounded_as_by_the_reference(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    make(FAMILIES["llama"]).save_pretrained(tmp_path)
    expected = scores(tmp_path, "stand-in", **settings)
    if INTERPRETED:
        monkeypatch.setattr(choose, "StandInBackend", InterpretedBackend)
    found = scores(tmp_path, DEVICE, **settings)
    # A number that lies between two steps may fall to either.
    truncates = INTERPRETED and settings["quantization"] == "fp8"  # what a GPU rounds
    least = 0.9 if truncates else 0.999
    assert torch.nn.functional.cosine_similarity(found, expected, dim=-1).min() > least


class Stop(Exception):
    """Enough was seen."""


@pytest.mark.skipif(not INTERPRETED, reason="only the interpreter runs these kernels without a GPU")
def test_what_a_warm_up_launches_is_seen_before_any_of_it_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: set[str] = set()

    class Noting(InterpretedBackend):
        def compile_ahead(self, work: Launches, threads: int) -> str:
            with collect() as launches:
                work()
            seen.update(each.kernel.__name__ for each in launches)
            raise Stop

    monkeypatch.setattr(choose, "StandInBackend", Noting)
    # The last layer's attention is of sampled tokens alone, so there are two.
    model = make(transformers.LlamaConfig(**SHAPE | {"num_hidden_layers": 2}))
    with pytest.raises(Stop):
        start(model, tmp_path, quantization="int8", max_num_seqs=16)
    assert seen >= {
        *("embed", "add_norm", "rotate_and_store", "round_rows", "eight_bit_product"),
        *("prefill_kernel", "decode_kernel", "race", "settle", "tally", "bound", "gather", "pick"),
        *("report_chunks", "report_rows"),
    }


def test_tokens_are_sampled_and_go_on_from_there(triton_kernels: None, tmp_path: Path) -> None:
    model = make(FAMILIES["llama"])
    core = start(model, tmp_path, device=DEVICE, warm_up=False)
    asked = [list(PROMPT), [5, 6], list(PROMPT[:4])]
    found = run(core, ask(asked, max_tokens=3))
    for index, prompt in enumerate(asked):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 3)


def test_the_sampled_tokens_of_prompts_share_what_their_prompts_share(
    triton_kernels: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    divided: list[AttentionTasks] = []
    attend = DeviceDecoder.attend

    def noting(
        self: DeviceDecoder,
        index: int,
        buffers: Buffers,
        step: StepTensors,
        tasks: AttentionTasks,
        cache: LayerCache,
    ) -> None:
        divided.append(tasks)
        attend(self, index, buffers, step, tasks, cache)

    monkeypatch.setattr(DeviceDecoder, "attend", noting)
    eager = Sharing(min_keys=8, min_sequences=2)
    monkeypatch.setattr(task_making, "Sharing", lambda: eager)
    model = make(FAMILIES["qwen3"])
    core = start(model, tmp_path, device=DEVICE, warm_up=False)
    common = [7, *PROMPT, *PROMPT, 5]
    asked = [[*common, first, first] for first in (11, 12, 13, 14)]
    found = run(core, ask(asked, max_tokens=2))
    for index, prompt in enumerate(asked):
        assert list(found[str(index)].outputs[0].token_ids) == greedy(model, prompt, 2)
    (prompts, *_) = divided
    assert (prompts.num_decodes, prompts.num_prefills) == (4, 0), "the one layer is the last one"
    assert prompts.segment_tiles > 0
