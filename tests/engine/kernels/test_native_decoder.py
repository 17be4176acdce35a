"""Whole decoders in C against the same weights in torch, for what families differ in."""

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.cache.kv_cache import KVCache
from engine.config import ModelConfig, RopeConfig
from engine.executors.inputs import BlockTables, StepInputs
from engine.executors.native_decoder import NativeDecoder
from engine.executors.native_executor import NativeExecutor
from engine.executors.native_weights import pack_decoder
from engine.executors.torch_executor import TorchExecutor
from engine.kernels.grouped import quantize_groups
from engine.kernels.int8 import quantize_weight
from engine.kernels.native.cache import NativeCache
from engine.kernels.native.limits import obstacle
from engine.kernels.reference.backend import ReferenceBackend
from engine.models.decoder import Decoder, QuantizedWeight
from engine.scheduler.step import Step, Work
from native import needs_kernels

pytestmark = needs_kernels

REFERENCE = ReferenceBackend()
CPU = torch.device("cpu")
BASE = ModelConfig(
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
LLAMA3 = RopeConfig(5000.0, "llama3", 8.0, 1.0, 4.0, 64)
CONFIGS = {
    "gqa": BASE,
    "mha": replace(BASE, num_kv_heads=6),
    "mqa": replace(BASE, num_kv_heads=1),
    "tied": replace(BASE, tie_embeddings=True),
    "nine-heads": replace(BASE, hidden_size=144, num_heads=9, num_kv_heads=3, tie_embeddings=True),
    "wide-heads": replace(BASE, head_dim=80),
    "biases": replace(BASE, qkv_bias=True, output_bias=True, mlp_bias=True),
    "qk-norm": replace(BASE, qk_norm=True, head_dim=32),
    "llama3-rope": replace(BASE, rope=LLAMA3),
    "window": replace(BASE, sliding_window=7),
    "window-in-one-layer": replace(BASE, sliding_window=5, sliding_layers=(1,)),
    "odd-vocabulary": replace(BASE, vocab_size=129),
}
QUANTIZE: dict[str, Callable[[Tensor], QuantizedWeight]] = {
    "int8": partial(quantize_weight, REFERENCE),
    "int4": partial(quantize_groups, REFERENCE, group=32),
    "int4-channel": partial(quantize_groups, REFERENCE, group=None, symmetric=True),
}
SIZE = 16


def make(config: ModelConfig, dtype: torch.dtype = torch.float32) -> Decoder:
    decoder = Decoder(config, REFERENCE)
    generator = torch.Generator().manual_seed(7)
    for name, parameter in decoder.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = (1 + 0.2 * noise if "norm" in name else 0.2 * noise).to(dtype)
    decoder.finish(CPU)
    return decoder.eval()


class Pair:
    """The same decoder in C and in torch, stepped alike."""

    def __init__(self, decoder: Decoder, cache: torch.dtype = torch.float32) -> None:
        config = decoder.config
        self.inputs = StepInputs(BlockTables(8, 16, SIZE), 400)
        plain = KVCache.allocate(config, 60, SIZE, CPU, decoder.embedding.dtype)
        self.torch = TorchExecutor(copy.deepcopy(decoder), plain)
        weights = pack_decoder(decoder, threads=2)
        native = NativeDecoder(weights, NativeCache(config, 60, SIZE, cache), 400, 8, 2)
        self.native = NativeExecutor(native)
        self.lengths = [0] * 8
        self.held: list[int] = [0] * 8
        self.free = list(range(60))
        self.random = np.random.default_rng(3)

    def step(self, counts: list[int], unsampled: int = 99) -> tuple[Tensor, Tensor]:
        """Scores after the last new token of every sequence that has some: C's, torch's.

        Nobody asks for those of sequences with ``unsampled`` new tokens or more.
        """
        works = []
        for slot, count in enumerate(counts):
            if not count:
                continue
            start = self.lengths[slot]
            self.lengths[slot] = end = start + count
            new = [self.free.pop() for _ in range(-(-end // SIZE) - self.held[slot])]
            self.held[slot] += len(new)
            vocab = self.torch._decoder.config.vocab_size
            tokens = tuple(self.random.integers(0, vocab, count).tolist())
            works.append(Work(slot, start, tokens, tuple(new), sample=count < unsampled))
        self.inputs.fill(Step(tuple(sorted(works, key=lambda w: len(w.token_ids) > 1))))
        with torch.inference_mode():
            theirs = self.torch.launch(self.inputs, logits=True).logits
            ours = self.native.launch(self.inputs, logits=True)
            greedy = self.native.launch(self.inputs, logits=False)
        assert greedy.logits is None
        assert (ours.logits is None) == (theirs is None)
        if ours.logits is None or theirs is None:
            return torch.empty(0), torch.empty(0)
        assert np.array_equal(ours.argmax, ours.logits.argmax(-1).numpy())
        assert np.array_equal(ours.argmax, greedy.argmax)
        return ours.logits.clone(), theirs


STEPS = ([41, 1, 5, 0], [1, 1, 30, 3], [1, 1, 1, 1], [1, 2, 1, 1], [0, 1, 1, 17])


@pytest.mark.parametrize("name", CONFIGS)
def test_scores_are_torchs(name: str) -> None:
    pair = Pair(make(CONFIGS[name]))
    for counts in STEPS:
        ours, theirs = pair.step(counts)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["gqa", "tied", "window", "window-in-one-layer", "qk-norm"])
def test_tokens_whose_scores_nobody_wants_are_kept_all_the_same(name: str) -> None:
    pair = Pair(make(CONFIGS[name]))
    for counts in ([41, 1, 5, 0], [30, 1, 30, 3], [1, 1, 1, 1], [1, 40, 1, 1], [0, 1, 1, 17]):
        ours, theirs = pair.step(counts, unsampled=17)
        assert len(ours) == sum(0 < count < 17 for count in counts)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


def test_a_step_that_wants_no_scores_is_kept() -> None:
    pair = Pair(make(CONFIGS["gqa"]))
    pair.inputs.fill(Step((Work(0, 0, tuple(range(20)), (7, 9), sample=False),)))
    with torch.inference_mode():
        for executor in (pair.torch, pair.native):
            nothing = executor.launch(pair.inputs, logits=True)
            assert (len(nothing.argmax), nothing.logits) == (0, None)
        pair.inputs.fill(Step((Work(0, 20, (3,), (), sample=True),)))
        ours, theirs = (e.launch(pair.inputs, logits=True) for e in (pair.native, pair.torch))
    torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-3)


def test_every_token_of_a_step_can_be_scored() -> None:
    pair = Pair(make(CONFIGS["nine-heads"]))
    works = (Work(0, 0, (5,), (7,), sample=True), Work(1, 0, tuple(range(50)), (1, 9, 3, 4), False))
    pair.inputs.fill(Step(works))
    with torch.inference_mode():
        ours, theirs = pair.native.score(pair.inputs), pair.torch.score(pair.inputs)
    assert ours.shape == (51, 197)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("how", QUANTIZE)
@pytest.mark.parametrize("name", ["gqa", "nine-heads", "biases", "odd-vocabulary"])
def test_quantized_scores_are_torchs(name: str, how: str) -> None:
    config = CONFIGS[name]
    if how == "int4" and config.hidden_size % 32:
        config = replace(config, hidden_size=288, head_dim=32)
    decoder = make(config)
    decoder.quantize(QUANTIZE[how])
    pair = Pair(decoder)
    for counts in STEPS:
        ours, theirs = pair.step(counts)
        # A value on the edge of two steps may fall either way, and later layers carry it on.
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("cache", [torch.bfloat16, torch.int8])
def test_a_narrow_cache_stays_near(cache: torch.dtype) -> None:
    pair = Pair(make(CONFIGS["nine-heads"]), cache)
    for counts in STEPS:
        ours, theirs = pair.step(counts)
        assert 0 < (ours - theirs).norm() < 0.05 * theirs.norm()


def test_bfloat16_stays_near_torchs() -> None:
    pair = Pair(make(CONFIGS["biases"], torch.bfloat16), torch.bfloat16)
    for counts in STEPS:
        ours, theirs = pair.step(counts)
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_of_equal_scores_the_first_is_the_argmax() -> None:
    decoder = make(CONFIGS["tied"])
    decoder.embedding.data[:] = decoder.embedding.data[:1]
    decoder.finish(CPU)
    weights = pack_decoder(copy.deepcopy(decoder), threads=3)
    for _ in range(5):
        native = NativeDecoder(
            weights, NativeCache(decoder.config, 4, SIZE, torch.float32), 16, 4, 3
        )
        inputs = StepInputs(BlockTables(4, 4, SIZE), 16)
        inputs.fill(Step((Work(0, 0, (5,), (0,), sample=True),)))
        assert NativeExecutor(native).launch(inputs, logits=False).argmax.tolist() == [0]


def test_what_it_cannot_run_has_a_reason() -> None:
    assert obstacle(BASE, 16, torch.float32) is None
    assert "head size, 12" in str(obstacle(replace(BASE, head_dim=12), 16, torch.float32))
    assert "blocks of 8" in str(obstacle(BASE, 8, torch.float32))
    assert "float16" in str(obstacle(BASE, 16, torch.float16))
