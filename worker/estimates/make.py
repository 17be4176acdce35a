"""From a job's plan to its estimate: what the rows tell of the past, and what the machine could."""

from dataclasses import dataclass, replace

from storage.database.tables import Job
from storage.errors import NotFound
from storage.estimates import history, lengths, rates
from storage.estimates.estimate import ModelOutlook, estimate
from storage.estimates.history import ModelPast, Past
from storage.estimates.lengths import Lengths, Limits
from storage.estimates.roofline import Device, gpu, roofline, start_seconds
from storage.estimates.work import PlannedWork, Room
from storage.jobs import jobs
from storage.jobs.planning import Plan
from storage.registry import files
from worker.context import WorkerContext
from worker.estimates.likeness import digest
from worker.estimates.machine import device_of, usual_processor
from worker.estimates.samples import output_lengths
from worker.estimates.sizes import size_of
from worker.models.devices import count_gpus, engine_devices
from worker.models.engines import Resident


def with_estimate(worker: WorkerContext, job: Job, plan: Plan, sources: dict[str, str]) -> Plan:
    """The plan with its job's estimate, and with what it is like.

    Raises:
        StorageError: what is known of the past cannot be read.
    """
    likeness = digest(plan.common, _filename(worker, job))
    sample = _sample(worker, job)
    past = history.past_of(
        worker.database, job, likeness, plan.work.keys(), sample.job.id if sample else None
    )
    ahead = history.seconds_ahead(worker.database, job) if job.only_estimated else 0.0
    engines = len(engine_devices(worker.settings.engine.device))
    outlooks = [
        _outlook(
            worker,
            work,
            past,
            past.models[name],
            sources[name],
            sample,
            measure=job.only_estimated,
        )
        for name, work in plan.work.items()
    ]
    found = estimate(
        outlooks,
        invalid_lines=plan.n_invalid,
        engines=engines,
        ahead_seconds=ahead / engines,
        price_per_hour=worker.settings.worker.device_price_per_hour,
    )
    return replace(plan, estimate=found, likeness=likeness)


@dataclass(frozen=True, slots=True)
class _Sample:
    """A job that ran some of the rows, and how long their outputs were."""

    job: Job
    tokens: list[int]

    @property
    def limit_tokens(self) -> int:
        """What the outputs of its rows could have had at most."""
        known = self.job.estimate
        if not known:
            return 0
        rows = int(known["rows"]) - int(known["invalid_rows"])
        return round(float(known["output_tokens"]["most"]) * len(self.tokens) / max(rows, 1))


def _sample(worker: WorkerContext, job: Job) -> _Sample | None:
    """The sample that the job names, if there is still something to learn from it."""
    name = job.options.get("sample")
    if not name:
        return None
    try:
        sample = jobs.get(worker.database, job.tenant_id, str(name))
    except NotFound:
        return None
    tokens = output_lengths(worker.store, sample)
    return _Sample(sample, tokens) if tokens else None


def _filename(worker: WorkerContext, job: Job) -> str:
    try:
        return files.load(worker.database, job.input_file_id).filename
    except NotFound:  # it has expired since
        return ""


def _outlook(
    worker: WorkerContext,
    work: PlannedWork,
    past: Past,
    model: ModelPast,
    source: str,
    sample: _Sample | None,
    *,
    measure: bool,
) -> ModelOutlook:
    device = _device(worker, model.device, measure=measure)
    size = size_of(source, on_gpu=device.gpu)
    learned = rates.fitted(rates.learned(model.measured, roofline(size, device)), model.alike)
    return ModelOutlook(
        planned=work,
        lengths=_lengths(work, past, sample),
        rates=learned,
        room=_room(worker, source, on_gpu=device.gpu),
        device=model.device or device.name,
        start_seconds=0.0 if _runs(worker, source) else start_seconds(size),
    )


def _device(worker: WorkerContext, rated_as: str | None, *, measure: bool) -> Device:
    """The device that a model runs on, for its roofline."""
    if rated_as is None:
        return device_of(worker.settings.engine.device, count_gpus(), measure=measure)
    # Of one that was measured the roofline gives the proportions alone.
    return gpu(rated_as) if rated_as.startswith("cuda") else usual_processor()


def _lengths(work: PlannedWork, past: Past, sample: _Sample | None) -> Lengths:
    lines = max(work.lines, 1)
    limits = Limits(work.limit_tokens / lines, float(work.longest))
    if sample is not None:
        return lengths.from_sample(sample.tokens, sample.limit_tokens, limits, lines)
    if past.alike:
        return lengths.from_history(past.alike, limits, lines)
    return lengths.from_limits(limits)


def _runs(worker: WorkerContext, source: str) -> Resident | None:
    """The engine of this worker that runs the model, if one does."""
    resident = worker.engines.resident
    return resident if resident is not None and resident.source == source else None


def _room(worker: WorkerContext, source: str, *, on_gpu: bool) -> Room:
    """What an engine of the model takes on at once: as it says, or as one would choose."""
    if resident := _runs(worker, source):
        info = resident.info
        return Room(info.max_num_seqs, info.max_batch_tokens, info.num_blocks * info.block_size)
    settings = worker.settings.engine
    outputs = settings.max_num_seqs or (1024 if on_gpu else 128)
    return Room(outputs, settings.max_batch_tokens or (8192 if on_gpu else 1024))
