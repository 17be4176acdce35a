"""From a job's plan to its estimate: what the rows tell of the past, and what the machine could."""

from dataclasses import dataclass, replace

from engine.info import EngineInfo
from storage.database.tables import Job
from storage.errors import NotFound
from storage.estimates import history, lengths, rates
from storage.estimates.estimate import ModelOutlook, estimate
from storage.estimates.history import Past
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
    known = _Known(worker, past, sample, measure=job.only_estimated)
    outlooks = [known.outlook(name, work, sources[name]) for name, work in plan.work.items()]
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


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known for a job's estimate; ``measure`` is as in `device_of`."""

    worker: WorkerContext
    past: Past
    sample: _Sample | None
    measure: bool

    def outlook(self, model: str, work: PlannedWork, source: str) -> ModelOutlook:
        """For one of its models, which an engine loads from ``source``."""
        past = self.past.models[model]
        device = self._device(past.device)
        size = size_of(source, on_gpu=device.gpu)
        learned = rates.learned(past.measured, roofline(size, device))
        runs = self.worker.engines.running(source)
        return ModelOutlook(
            planned=work,
            lengths=self._lengths(work),
            rates=rates.fitted(learned, past.alike),
            room=self._usual_room(device) if runs is None else _room_of(runs.info),
            device=past.device or device.name,
            start_seconds=start_seconds(size) if runs is None else 0.0,
        )

    def _device(self, rated_as: str | None) -> Device:
        """The device that a model runs on, for its roofline."""
        if rated_as is None:
            setting = self.worker.settings.engine.device
            return device_of(setting, count_gpus(), measure=self.measure)
        # Of one that was measured the roofline gives the proportions alone.
        return gpu(rated_as) if rated_as.startswith("cuda") else usual_processor()

    def _lengths(self, work: PlannedWork) -> Lengths:
        lines = max(work.lines, 1)
        limits = Limits(work.limit_tokens / lines, float(work.longest))
        if self.sample is not None:
            tokens, most = self.sample.tokens, self.sample.limit_tokens
            return lengths.from_sample(tokens, most, limits, lines)
        if self.past.alike:
            return lengths.from_history(self.past.alike, limits, lines)
        return lengths.from_limits(limits)

    def _usual_room(self, device: Device) -> Room:
        """What an engine would take on at once, as far as the settings leave it open."""
        settings = self.worker.settings.engine
        outputs, tokens = (1024, 8192) if device.gpu else (128, 1024)
        return Room(settings.max_num_seqs or outputs, settings.max_batch_tokens or tokens)


def _room_of(info: EngineInfo) -> Room:
    return Room(info.max_num_seqs, info.max_batch_tokens, info.num_blocks * info.block_size)
