"""The section ``engine``: whole workloads, random weights of true shapes, each precision.

Lengths of ``nano``, ``groups4096`` and ``q1000`` are those that the other engines' figures were
measured with. Requests are queued as `engine.LLM.generate` queues them; their texts are not
decoded.
"""

import gc
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from workloads import WORKLOADS, Item, shrunk

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import EngineError
from engine.executors.executor import Pending
from engine.executors.runner import Sampled, StepRunner
from engine.params import SamplingParams
from engine.prefix_order import depth_first, pack_tokens
from engine.requests import Request
from engine.scheduler.step import Step
from gpu.random_models import RandomCheckpoint, open_engine
from gpu.rows import Section, said
from gpu.shapes import LLAMA3_8B, QWEN3_06B, model_config

PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "bf16": {"dtype": "bfloat16", "quantization": "none"},
    "fp8": {"dtype": "bfloat16", "quantization": "fp8", "kv_cache_dtype": "fp8"},
    "int8": {"dtype": "bfloat16", "quantization": "int8", "kv_cache_dtype": "bfloat16"},
    "int4": {"dtype": "bfloat16", "quantization": "int4", "kv_cache_dtype": "bfloat16"},
}
ENGINE_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "no graphs": {"graphs": False},
    "no overlap": {"overlap": False},
    "no cascade": {"cascade": False},
}


@dataclass(frozen=True, slots=True)
class Run:
    """One engine, and the workloads that it serves in turn.

    Attributes:
        shape: a name of `gpu.shapes.SHAPES`.
        precision, option: names of the tables above.
        workloads: names of `workloads.WORKLOADS`.
        seconds: that each workload may take.
    """

    shape: str
    precision: str
    workloads: tuple[str, ...]
    option: str = ""
    seconds: float = 30.0

    @property
    def name(self) -> str:
        """For a row."""
        return f"{self.shape} {self.precision} {self.option}".strip()


# The most telling ones first: the section ends when its time is over.
RUNS = (
    Run(QWEN3_06B, "bf16", ("nano", "groups4096")),
    Run(LLAMA3_8B, "fp8", ("q1000",), seconds=45),
    Run(LLAMA3_8B, "bf16", ("long1", "long16", "q1000"), seconds=40),
    Run(LLAMA3_8B, "int4", ("long1", "long16")),
    Run(QWEN3_06B, "bf16", ("nano",), "no graphs", 12),
    Run(QWEN3_06B, "bf16", ("nano",), "no overlap", 12),
    Run(QWEN3_06B, "bf16", ("groups4096",), "no cascade", 12),
    Run(QWEN3_06B, "int8", ("nano",), seconds=12),
)


@dataclass
class Phases:
    """Where a workload's time went, in seconds of the host's clock, and what was computed."""

    launch: float = 0.0
    collect: float = 0.0
    tokens: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)


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
        long = sum(len(work.token_ids) for work in step.works if len(work.token_ids) > 1)
        phases.steps["prefill" if long else "decode"] += 1
        phases.tokens["prefill"] += long
        phases.tokens["decode"] += step.num_tokens - long
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


@dataclass
class Figure:
    """What came of one workload; whole where it was not stopped early."""

    seconds: float
    finished: int
    requests: int
    prompt_tokens: int
    output_tokens: int

    def columns(self) -> dict[str, Any]:
        """For a row."""
        whole = self.finished == self.requests
        return {
            "s": round(self.seconds, 2),
            "out/s": round(self.output_tokens / self.seconds),
            "in/s": round(self.prompt_tokens / self.seconds),
            "total/s": round((self.prompt_tokens + self.output_tokens) / self.seconds),
            "note": "" if whole else f"stopped at {self.finished} of {self.requests}",
        }


def serve(core: EngineCore, items: list[Item], seconds: float) -> Figure:
    """Queue all requests, and step until they are done or the time is over.

    Prompt tokens are those of requests that finished; of a run that was stopped, output tokens
    count the unfinished ones' too.
    """
    prompts = [pack_tokens(item.prompt) for item in items]
    outputs = [item.output_tokens for item in items]
    before = core.stats()
    began = perf_counter()
    for index in depth_first(prompts, outputs, core.info.block_size):
        item = items[index]
        params = SamplingParams(temperature=0, max_tokens=item.output_tokens, ignore_eos=True)
        core.add(Request(str(index), item.prompt, params, ""))
    core.flush()
    while core.has_work and perf_counter() - began < seconds:
        for finished in core.step():
            if finished.refusal is not None:
                raise finished.refusal
    took = perf_counter() - began
    after = core.stats()
    core.cancel([str(index) for index in range(len(items))])
    while core.has_work:
        core.step()
    return Figure(
        seconds=took,
        finished=after.finished - before.finished,
        requests=len(items),
        prompt_tokens=after.prompt_tokens - before.prompt_tokens,
        output_tokens=after.output_tokens - before.output_tokens,
    )


def warm_up(vocab_size: int, *, toy: bool) -> list[Item]:
    """Requests of many lengths, so that what is made at first use is made before the clock runs."""
    items = WORKLOADS["nano"](vocab_size, 99)
    return shrunk(items, 4, 0.05) if toy else shrunk(items, 64, 0.1)


def run(section: Section) -> None:
    """Every run that fits into the section's time."""
    for one in RUNS:
        if not section.wants(f"{one.name} {' '.join(one.workloads)}"):
            continue
        if section.left < 15 and not section.dry:
            section.row(engine=one.name, note="no time left")
            continue
        try:
            _run(section, one)
        except (EngineError, TypeError) as error:
            # A precision that the machine does not serve, or an option that the engine lacks.
            section.row(engine=one.name, note=f"refused: {said(error)}")
        gc.collect()
        if section.device == "cuda":
            torch.cuda.empty_cache()


def _run(section: Section, one: Run) -> None:
    toy = section.dry
    settings = {**PRECISIONS[one.precision], **ENGINE_OPTIONS[one.option]}
    if toy:
        settings["kv_cache_bytes"] = 8 * 2**20
    config = EngineConfig(model=one.shape, device=section.device, seed=0, **settings)
    model = model_config(one.shape, toy=toy)
    source = RandomCheckpoint(model, torch.device("cuda" if section.device == "cuda" else "cpu"))
    core, runner = open_engine(config, one.shape, model, source)
    core.runner = timed = TimedRunner(runner)
    section.row(engine=one.name, workload="ready", s=round(core.info.load_seconds, 1))
    serve(core, warm_up(model.vocab_size, toy=toy), section.left)
    for number, name in enumerate(one.workloads):
        items = WORKLOADS[name](model.vocab_size, number)
        if toy:
            items = shrunk(items, 4, 0.03)
        timed.phases = phases = Phases()
        figure = serve(core, items, min(one.seconds, max(section.left - 3, 1)))
        steps = max(1, sum(phases.steps.values()))
        section.row(
            engine=one.name,
            workload=name,
            **figure.columns(),
            steps=f"{phases.steps['prefill']}+{phases.steps['decode']}",
            tokens=f"{phases.tokens['prefill']}+{phases.tokens['decode']}",
            ms=f"{figure.seconds / steps * 1e3:.2f}"
            f" ({phases.launch / steps * 1e3:.2f} launch, {phases.collect / steps * 1e3:.2f} wait)",
        )
