"""The section ``engine``: whole workloads, random weights of true shapes, each precision.

Lengths of ``nano``, ``groups4096`` and ``q1000`` are those that the other engines' figures were
measured with. Requests are queued as `engine.LLM.generate` queues them; their texts are not
decoded.
"""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter
from typing import Any

import torch
from workloads import WORKLOADS, Item, shrunk

from engine.config import EngineConfig
from engine.core import EngineCore
from engine.errors import EngineError
from engine.params import SamplingParams
from engine.prefix_order import depth_first, pack_tokens
from engine.requests import Request
from gpu.engines import OPTIONS, PRECISIONS, RUNS, Run
from gpu.phases import Phases, TimedRunner, profile
from gpu.random_models import RandomCheckpoint, open_engine
from gpu.rows import Section, said
from gpu.shapes import model_config

_NEEDED = 12.0  # seconds that it takes to warm up, and a little more
_WARMED_UP = 5.0  # seconds at the most
_PROFILED_STEPS = 20
_FEW = 4  # requests that nothing more is compiled for


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


def serve(core: EngineCore, items: Sequence[Item], seconds: float) -> Figure:
    """Queue all requests, and step until they are done or the time is over.

    Prompt tokens are those of requests that finished; of a run that was stopped, output tokens
    count the unfinished ones' too.
    """
    before = core.stats()
    began = perf_counter()
    _queue(core, items)
    while core.has_work and perf_counter() - began < seconds:
        _step(core)
    took = perf_counter() - began
    after = core.stats()
    _cancel(core, items)
    return Figure(
        seconds=took,
        finished=after.finished - before.finished,
        requests=len(items),
        prompt_tokens=after.prompt_tokens - before.prompt_tokens,
        output_tokens=after.output_tokens - before.output_tokens,
    )


def _queue(core: EngineCore, items: Sequence[Item]) -> None:
    prompts = [pack_tokens(item.prompt) for item in items]
    outputs = [item.output_tokens for item in items]
    for index in depth_first(prompts, outputs, core.info.block_size):
        item = items[index]
        params = SamplingParams(temperature=0, max_tokens=item.output_tokens, ignore_eos=True)
        core.add(Request(str(index), item.prompt, params, ""))
    core.flush()


def _step(core: EngineCore) -> None:
    for finished in core.step():
        if finished.refusal is not None:
            raise finished.refusal


def _cancel(core: EngineCore, items: Sequence[Item]) -> None:
    core.cancel([str(index) for index in range(len(items))])
    while core.has_work:
        core.step()


@cache
def _items(name: str, vocab_size: int, number: int, *, toy: bool) -> list[Item]:
    """A workload; those of other numbers have other tokens."""
    if toy:
        return shrunk(_items(name, vocab_size, 0, toy=False), 2, 0.03)
    return WORKLOADS[name](vocab_size, number)


def _warm_up(core: EngineCore, items: list[Item]) -> None:
    """Steps of every size and then of the true lengths: what is made at first use is made here."""
    serve(core, shrunk(items, 256, 0.1), _WARMED_UP)
    if len(items) > _FEW:
        serve(core, items, _WARMED_UP)


def run(section: Section) -> None:
    """Every run that fits into the section's time."""
    for one in RUNS[::4] if section.dry and not section.picked else RUNS:
        names = [name for name in one.workloads if section.wants(f"{one.name} {name}")]
        if not names:
            continue
        try:
            _run(section, one, names)
        except EngineError as error:
            # A precision that the machine does not serve.
            section.row(engine=one.name, note=f"refused: {said(error)}")
        except Exception as error:  # noqa: BLE001, whatever it is, the other runs are to be tried
            section.failed(error, engine=one.name)
        gc.collect()
        if section.device == "cuda":
            torch.cuda.empty_cache()
    section.end(engine="skipped")


def _run(section: Section, one: Run, names: Sequence[str]) -> None:
    """One engine over its workloads."""
    # An engine that is begun for the second time ended its process the first time.
    if not section.begins(f"{one.name} {names[0]}, ready", needs=one.needed, limit=90):
        return
    toy = section.dry
    settings = {**PRECISIONS[one.precision], **OPTIONS[one.option]}
    if toy:
        settings["kv_cache_bytes"] = 8 * 2**20
    config = EngineConfig(model=one.shape, device=section.device, seed=0, **settings)
    model = model_config(one.shape, toy=toy)
    source = RandomCheckpoint(model, section.torch_device)
    began = perf_counter()
    core, runner = open_engine(config, one.shape, model, source)
    serve(core, [Item(tuple(range(100, 150)), 1)], section.left)
    ready = perf_counter() - began
    placement = runner.placement
    section.row(
        engine=one.name,
        workload="ready",
        s=round(ready, 1),
        note=f"{core.info.load_seconds:.1f} s to load, then the first token; "
        f"{placement.num_blocks:,} blocks, {placement.max_num_seqs} sequences",
    )
    core.runner = timed = TimedRunner(runner)
    for name in names:
        if not section.begins(f"{one.name} {name}", needs=_NEEDED, limit=one.seconds + 45):
            continue
        _warm_up(core, _items(name, model.vocab_size, 1, toy=toy))
        items = _items(name, model.vocab_size, 0, toy=toy)
        timed.phases = phases = Phases()
        figure = serve(core, items, max(1.0, min(one.seconds, section.left - 3)))
        columns = figure.columns() | phases.columns(figure.seconds)
        section.row(engine=one.name, workload=name, **columns)
        if name == one.profiled and section.left > _NEEDED:
            note = _profile(section, core, timed, _items(name, model.vocab_size, 1, toy=toy))
            section.row(engine=one.name, workload=f"{name}, profile", note=note)


def _profile(section: Section, core: EngineCore, timed: TimedRunner, items: list[Item]) -> str:
    """Some steps without prompts in them, in the middle of a workload."""
    phases = timed.phases = Phases()
    began = perf_counter()
    _queue(core, items)
    while phases.steps["decode"] < 3 and perf_counter() - began < _WARMED_UP and core.has_work:
        _step(core)
    times = 2 if section.dry else _PROFILED_STEPS
    note = profile(lambda: _step(core), times, section.torch_device)
    _cancel(core, items)
    return note
