"""A sampler over Triton's kernels chooses what one over the oracle chooses."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.kernels.fused.device import Graph, Launches, Mark
from engine.kernels.fused.sampling import SamplingKernels
from engine.kernels.reference.device_sampling import ReferenceSampling
from engine.kernels.triton.launch import INTERPRETED
from engine.kernels.triton.sampling.sampling import TritonSampling
from engine.params import SamplingParams
from engine.sampling.device_sampler import DeviceSampler
from engine.scheduler.step import Admission, SampledToken

# The interpreter computes with numpy, which warns of what a device does silently.
pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in .*:RuntimeWarning")

GPU = torch.cuda.is_available() and not INTERPRETED
VOCAB, END = 1003, 1002


@dataclass
class Eager:
    """A device on which everything is done at once, or in the order of its stream."""

    torch_device: torch.device
    multiprocessors: int = 8

    def use(self) -> AbstractContextManager[object]:
        return nullcontext()

    def submit(self, work: Launches) -> None:
        work()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, pin_memory=self.torch_device.type == "cuda")

    def copy(self, source: Tensor, target: Tensor) -> None:
        target.copy_(source, non_blocking=True)

    def mark(self) -> Mark:
        raise NotImplementedError

    def record(self, work: Launches) -> Graph:
        raise NotImplementedError

    def fetch(self, tensor: Tensor) -> Tensor:
        return tensor.cpu()

    def free_memory(self) -> int:
        raise NotImplementedError


ASKED = [
    SamplingParams(temperature=0, logprobs=4),
    SamplingParams(seed=3, temperature=0.9),
    SamplingParams(seed=4, top_k=12, top_p=0.8, repetition_penalty=1.3),
    SamplingParams(seed=5, min_p=0.02, frequency_penalty=0.4, logit_bias={17: 6.0}, logprobs=0),
    SamplingParams(temperature=0, min_tokens=2, presence_penalty=1.0),
]


def sampled_by(kernels: SamplingKernels, device: torch.device) -> list[list[SampledToken]]:
    """Three steps of five slots in a padded batch."""
    sampler = DeviceSampler(Eager(device), kernels, VOCAB, 8, [END], 0)
    slots = [6, 2, 0, 5, 3]
    for slot, params in zip(slots, ASKED, strict=True):
        sampler.admit(slot, Admission(params, 0, (1, 2, 2, slot), ()))
    found = []
    generator = torch.Generator().manual_seed(3)
    for step in range(3):
        logits = torch.randn(6, VOCAB, generator=generator) * 3
        logits[[0, 4], END] += 20
        sampler.upload(step % 2)
        tokens = torch.full((6,), -7, dtype=torch.int32, device=device)
        on_device = torch.tensor([*slots, -1], dtype=torch.int32, device=device)
        positions = torch.tensor([4 + step] * 5 + [0], dtype=torch.int32, device=device)
        plain = sampler.plain(slots)
        sampler.draw(logits.to(device), on_device, positions, tokens, plain, slots)
        chosen = tokens.tolist()
        assert chosen[5] == -7
        assert sampler.last_tokens[slots].tolist() == chosen[:5]
        reports = sampler.collect(np.array(chosen[:5]), slots, step % 2)
        found.append([reports.get(row) or SampledToken(chosen[row]) for row in range(5)])
    return found


def test_a_sampler_s_tokens_are_those_of_the_oracle_s_kernels() -> None:
    found = sampled_by(TritonSampling(), torch.device("cuda" if GPU else "cpu"))
    expected = sampled_by(ReferenceSampling(), torch.device("cpu"))
    for step, rows in zip(found, expected, strict=True):
        assert [x.token_id for x in step] == [x.token_id for x in rows]
        for a, b in zip(step, rows, strict=True):
            assert [i for i, _ in a.top] == [i for i, _ in b.top]
            assert (a.logprob is None) == (b.logprob is None)
            assert [x for _, x in a.top] == pytest.approx([x for _, x in b.top], abs=1e-4)
    assert [step[0].token_id == END for step in found] == [True] * 3
    assert [step[4].token_id == END for step in found] == [False, False, True]
    assert len(found[0][0].top) == 4
    assert found[0][3].logprob is not None
