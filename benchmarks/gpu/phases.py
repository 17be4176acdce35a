"""Where the time of steps goes: on the host by its clock, on a GPU by torch's profiler."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]

from engine.executors.executor import Pending
from engine.executors.runner import Sampled, StepRunner
from engine.scheduler.step import Step

_NAMED = 6  # kernels


@dataclass
class Phases:
    """Where a workload's time went, in seconds of the host's clock, and what was computed.

    Attributes:
        launch: until steps were launched.
        collect: waiting for their tokens.
        tokens, steps: of steps with prompts in them and of those without.
        sequences: of all steps.
    """

    launch: float = 0.0
    collect: float = 0.0
    tokens: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    sequences: int = 0

    def columns(self, seconds: float) -> dict[str, Any]:
        """For a row.

        Args:
            seconds: that all of it took.
        """
        steps = max(1, self.steps.total())
        launch, collect = (x / steps * 1e3 for x in (self.launch, self.collect))
        whole = seconds / steps * 1e3
        other = whole - launch - collect
        return {
            "steps": f"{self.steps['prefill']}+{self.steps['decode']}",
            "tokens": f"{self.tokens['prefill']}+{self.tokens['decode']}",
            "batch": round(self.sequences / steps, 1),
            "ms": f"{whole:.2f} ({launch:.2f} launch, {collect:.2f} wait, {other:.2f} else)",
        }


class TimedRunner:
    """A runner whose calls are timed; see `engine.executors.runner.StepRunner`."""

    def __init__(self, runner: StepRunner) -> None:
        self._runner = runner
        self.placement = runner.placement
        self.max_in_flight = runner.max_in_flight
        self.phases = Phases()

    def launch(self, step: Step) -> Pending[Sampled]:
        """See `StepRunner`."""
        phases = self.phases
        long = sum(len(work.token_ids) for work in step.others if len(work.token_ids) > 1)
        phases.steps["prefill" if long else "decode"] += 1
        phases.tokens["prefill"] += long
        phases.tokens["decode"] += step.num_tokens - long
        phases.sequences += len(step.decodes) + len(step.others)
        began = perf_counter()
        pending = self._runner.launch(step)
        phases.launch += perf_counter() - began
        return _TimedPending(pending, phases)

    def on_layer(self, call: Callable[[], None]) -> None:
        """See `StepRunner`."""
        self._runner.on_layer(call)


@dataclass(frozen=True, slots=True)
class _TimedPending:
    pending: Pending[Sampled]
    phases: Phases

    def collect(self) -> Sampled:
        """See `Pending`."""
        began = perf_counter()
        sampled = self.pending.collect()
        self.phases.collect += perf_counter() - began
        return sampled


def profile(call: Callable[[], object], times: int, device: torch.device) -> str:
    """How busy a GPU is in some calls, and which kernels take its time, in a line."""
    on_gpu = device.type == "cuda"
    kinds = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[kinds.CUDA if on_gpu else kinds.CPU]) as profiler:
        began = perf_counter()
        for _ in range(times):
            call()
        if on_gpu:
            torch.cuda.synchronize(device)
        took = perf_counter() - began
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        if not on_gpu or event.device_type == DeviceType.CUDA:
            spent[event.key] += (
                event.self_device_time_total if on_gpu else event.self_cpu_time_total
            )
    busy = spent.total() / 1e6
    return (
        f"busy {busy / took:.0%} of {took / times * 1e3:.2f} ms a step: {_shares(spent)}"
        if busy
        else "the profiler saw nothing"
    )


def _shares(spent: Counter[str]) -> str:
    largest: Sequence[tuple[str, int]] = spent.most_common(_NAMED)
    return ", ".join(f"{name[:40]} {time / spent.total():.0%}" for name, time in largest)
