"""Choosing for a machine: the first backend that can, what it serves, and why."""

from dataclasses import replace

import pytest
import torch

from engine.config import CacheDtype, EngineConfig, ModelConfig, Quantization, RopeConfig
from engine.errors import InvalidConfig, OutOfCache
from engine.executors.choose import backends, choose, choose_kernels
from engine.executors.placement import place
from engine.kernels.backend import Service
from engine.kernels.native.backend import NativeBackend
from engine.kernels.reference.backend import ReferenceBackend
from engine.kernels.triton.backend import TritonBackend
from native import needs_kernels

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MODEL = ModelConfig(
    family="llama",
    vocab_size=197,
    hidden_size=96,
    intermediate_size=160,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    max_position=256,
    rms_norm_eps=1e-5,
    rope=RopeConfig(),
    tie_embeddings=False,
)


class Planted(ReferenceBackend):
    """Kernels for GPUs that serve int8, and say what they cannot run."""

    name = "planted"
    title = "the planted kernels"
    device_types = frozenset({"cuda"})

    def __init__(self, obstacle: str | None = None) -> None:
        super().__init__()
        self._obstacle = obstacle
        self.asked = 0

    def obstacle(self, model: ModelConfig, block_size: int, dtype: torch.dtype) -> str | None:
        self.asked += 1
        return self._obstacle

    def service(self, device: torch.device, dtype: torch.dtype) -> Service:
        return Service(("none", "int8"), (dtype, torch.int8), "int8", "as it is planted")


def test_quantization_on_a_gpu_is_what_its_kernels_serve() -> None:
    config = EngineConfig(quantization="int8")
    offered = Planted(), ReferenceBackend()
    chosen = choose_kernels(config, MODEL, CUDA, torch.bfloat16, offered)
    assert (chosen.backend, chosen.quantization) == (offered[0], "int8")
    assert chosen.cache_dtype == torch.int8
    assert chosen.reasons == ()
    assert offered[0].asked == 1


def test_what_kernels_prefer_is_taken_where_nothing_is_asked_for() -> None:
    chosen = choose_kernels(EngineConfig(), MODEL, CUDA, torch.bfloat16, [Planted()])
    assert (chosen.quantization, chosen.reasons) == ("int8", ("int8, as it is planted",))
    typed = EngineConfig(dtype="float16")
    chosen = choose_kernels(typed, MODEL, CUDA, torch.float16, [Planted()])
    assert chosen.quantization == "none"
    assert chosen.reasons == ("no quantization, as a dtype was asked for",)
    assert chosen.cache_dtype == torch.float16


def test_an_obstacle_leads_to_the_next_backend_and_is_told() -> None:
    offered = Planted("it is a Tuesday"), ReferenceBackend()
    chosen = choose_kernels(EngineConfig(), MODEL, CUDA, torch.bfloat16, offered)
    assert chosen.backend is offered[1]
    assert chosen.reasons == ("PyTorch's kernels, as it is a Tuesday",)
    assert (chosen.quantization, chosen.cache_dtype) == ("none", torch.bfloat16)


def test_kernels_of_another_device_are_not_asked() -> None:
    offered = Planted(), ReferenceBackend()
    chosen = choose_kernels(EngineConfig(), MODEL, CPU, torch.float32, offered)
    assert (chosen.backend, chosen.reasons, offered[0].asked) == (offered[1], (), 0)
    with pytest.raises(InvalidConfig, match="No kernels run this model on cpu"):
        choose_kernels(EngineConfig(), MODEL, CPU, torch.float32, [Planted()])


@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_what_nobody_serves_is_refused(quantization: Quantization) -> None:
    config = EngineConfig(quantization=quantization)
    with pytest.raises(InvalidConfig, match="not served on cuda by PyTorch's kernels: use none"):
        choose_kernels(config, MODEL, CUDA, torch.bfloat16, backends(1))


@pytest.mark.parametrize(
    ("capability", "obstacle"),
    [
        (None, "need a GPU of compute capability 8.0"),
        ((7, 5), "need a GPU of compute capability 8.0"),
        ((8, 0), None),
        ((9, 0), None),
    ],
)
def test_triton_runs_on_new_enough_gpus(
    capability: tuple[int, int] | None, obstacle: str | None
) -> None:
    found = TritonBackend(capability).obstacle(MODEL, 16, torch.bfloat16)
    assert obstacle in found if obstacle and found else found is None


@pytest.mark.parametrize(
    ("head_dim", "obstacle"), [(512, "heads of 512 are wider than 256"), (256, None)]
)
def test_triton_says_what_it_cannot_run(head_dim: int, obstacle: str | None) -> None:
    backend = TritonBackend((9, 0))
    assert backend.obstacle(replace(MODEL, head_dim=head_dim), 16, torch.bfloat16) == obstacle
    assert backend.obstacle(MODEL, 24, torch.bfloat16) == "blocks of 24 tokens are no power of two"


@pytest.mark.parametrize(("capability", "served"), [((8, 0), False), ((8, 9), True)])
def test_float8_needs_a_gpu_that_multiplies_it(capability: tuple[int, int], served: bool) -> None:
    service = TritonBackend(capability).service(CUDA, torch.bfloat16)
    assert ("fp8" in service.quantizations) == served
    assert (torch.float8_e4m3fn in service.cache_dtypes) == served
    assert {"none", "int8", "int4"} <= set(service.quantizations)
    assert torch.int8 in service.cache_dtypes


def test_a_gpus_cache_has_8_bits_only_where_they_are_asked_for() -> None:
    offered = [TritonBackend((9, 0))]
    expectations: list[tuple[CacheDtype, torch.dtype]] = [
        ("auto", torch.bfloat16),
        ("fp8", torch.float8_e4m3fn),
    ]
    for asked, expected in expectations:
        config = EngineConfig(quantization="int8", kv_cache_dtype=asked)
        chosen = choose_kernels(config, MODEL, CUDA, torch.bfloat16, offered)
        assert chosen.cache_dtype == expected
    plain = offered[0].block_bytes(MODEL, 16, torch.bfloat16)
    narrow = offered[0].block_bytes(MODEL, 16, torch.int8)
    scales = 2 * MODEL.num_layers * 16 * MODEL.num_kv_heads * 4
    assert narrow == plain // 2 + scales


def test_the_stand_in_takes_the_place_of_every_device() -> None:
    choice = choose(EngineConfig(device="stand-in", dtype="float32"), MODEL)
    assert (choice.device, choice.backend.name) == (CPU, "stand-in")


def test_a_cache_that_is_not_served_is_refused() -> None:
    config = EngineConfig(kv_cache_dtype="int8", dtype="float32")
    with pytest.raises(InvalidConfig, match="int8 is not served here; float32 is"):
        choose_kernels(config, MODEL, CPU, torch.float32, [ReferenceBackend()])


def test_groups_must_divide_the_widths() -> None:
    config = EngineConfig(quantization="int4", group_size=64)
    with pytest.raises(InvalidConfig, match="do not divide into groups of 64"):
        choose_kernels(config, MODEL, CPU, torch.float32, [ReferenceBackend()])
    for size in (32, -1):
        config = EngineConfig(quantization="int4", group_size=size)
        chosen = choose_kernels(config, MODEL, CPU, torch.float32, [ReferenceBackend()])
        assert chosen.quantization == "int4"


@needs_kernels
def test_a_cpu_gets_the_kernels_in_c_with_int8() -> None:
    choice = choose(EngineConfig(device="cpu", threads=2), MODEL)
    assert isinstance(choice.backend, NativeBackend)
    assert (choice.quantization, choice.cache_dtype, choice.threads) == ("int8", torch.int8, 2)
    assert "int8, as it is the fastest within 1% of bfloat16's perplexity" in choice.reasons


def test_a_model_that_c_cannot_run_gets_the_reference() -> None:
    odd = replace(MODEL, head_dim=12)
    choice = choose(EngineConfig(device="cpu", dtype="float32"), odd)
    assert choice.backend.name == "reference"
    assert "PyTorch's kernels, as its head size, 12, is not a multiple of 16" in choice.reasons
    assert choice.quantization == "none"


def test_the_cache_is_counted_in_the_backends_blocks() -> None:
    config = EngineConfig(device="cpu", dtype="float32", kv_cache_bytes=2**20)
    choice = replace(choose(config, MODEL), backend=ReferenceBackend(), cache_dtype=torch.float32)
    block = 16 * MODEL.kv_bytes_per_token(4)
    assert place(config, MODEL, choice).num_blocks == 2**20 // block
    with pytest.raises(OutOfCache, match=f"{block:,}"):
        place(replace(config, kv_cache_bytes=block - 1), MODEL, choice)
