"""Seeded bugs: small changes to the product's source, each of which the simulation must catch.

`REQUIRED` are those that the protocol names; `MORE` are our own. A mutant is a list of edits, each
the exact old text of a module, which must be there once, and the new one. `applied` makes the next
import of that module read the changed source, so it has to come before the product is imported.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOT = Path(__file__).parents[2]


class MutantOutdated(Exception):
    """The text that a mutant replaces is not in the source exactly once; adapt the mutant."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement in one module."""

    module: str
    old: str
    new: str

    @property
    def path(self) -> Path:
        """The module's source file."""
        return ROOT / Path(*self.module.split(".")).with_suffix(".py")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A named bug. ``caught_by`` are the invariants that may show it; any other is a mistake."""

    name: str
    edits: tuple[Edit, ...]
    caught_by: frozenset[str]


def mutate(source: str, edit: Edit) -> str:
    """The changed source.

    Raises:
        MutantOutdated: the old text is not there exactly once.
    """
    found = source.count(edit.old)
    if found != 1:
        raise MutantOutdated(f"{edit.module} holds {found} times, not once: {edit.old!r}")
    return source.replace(edit.old, edit.new)


def _mutant(name: str, caught_by: str, *edits: Edit) -> Mutant:
    return Mutant(name, edits, frozenset(caught_by.split()))


_FENCE = "            col(Chunk.attempt) == attempt,\n"
_GUARD = (
    "            col(Chunk.state) == ChunkState.LEASED,\n        )\n        .values(state=after"
)

REQUIRED = (
    _mutant(
        "no-attempt-fence",
        "I2 I3 I4 I5",
        Edit("storage.jobs.transitions", _FENCE, ""),
    ),
    _mutant(
        "no-leased-guard",
        "I2 I3 I4 I5 I6",
        Edit("storage.jobs.transitions", _GUARD, "        )\n        .values(state=after"),
    ),
    _mutant(
        "part-key-without-attempt",
        "I3 I4 I5 I8",
        Edit("storage.objects.object_keys", "{a}-{b}/{attempt}.jsonl", "{a}-{b}/part.jsonl"),
    ),
    _mutant(
        "eager-garbage-collection",
        "I4 I5",
        Edit("storage.jobs.garbage", "            col(Job.state).in_(TERMINAL_JOB_STATES),\n", ""),
        Edit("storage.jobs.garbage", "            ended <= now_sql() - older_than,\n", ""),
    ),
    _mutant(
        "incremented-counters",
        "I5",
        Edit(
            "storage.jobs.chunks",
            "        known = session.get(Chunk, chunk_id)\n",
            "        known = session.get(Chunk, chunk_id)\n"
            "        _count(session, known, counts)\n",
        ),
        Edit(
            "storage.jobs.chunks",
            "        if chunk is not None:\n            return chunk\n",
            "        if chunk is not None:\n"
            "            _count(session, chunk, counts)\n"
            "            return chunk\n",
        ),
        Edit(
            "storage.jobs.chunks",
            "def release_chunk(",
            "def _count(session: Session, chunk: Chunk, counts: Counts) -> None:\n"
            "    more = {'n_ok': col(Job.n_ok) + counts.ok, 'n_err': col(Job.n_err) + counts.err}\n"
            "    session.execute(update(Job).where(col(Job.id) == chunk.job_id).values(more))\n"
            "\n\ndef release_chunk(",
        ),
        Edit("storage.jobs.finalizing", "        n_ok=sums.n_ok,\n        n_err=sums.n_err,\n", ""),
    ),
    _mutant(
        "no-split",
        "I8",
        Edit(
            "storage.jobs.crashes",
            "if crashes >= SPLIT_CRASHES and chunk.b",
            "if False and chunk.b",
        ),
    ),
    _mutant(
        "result-key-without-epoch",
        "I5 I6",
        Edit(
            "storage.objects.object_keys",
            "{results(job_id)}{epoch}/{kind}",
            "{results(job_id)}{kind}",
        ),
    ),
)

MORE = (
    _mutant(
        "no-epoch-guard-in-commit-plan",
        "I2 I1",
        Edit(
            "storage.jobs.planning",
            "            JobState.RUNNING,\n            col(Job.plan_epoch) == epoch,\n",
            "            JobState.RUNNING,\n",
        ),
    ),
    _mutant(
        "no-epoch-guard-in-commit-final",
        "I2 I5 I6",
        Edit("storage.jobs.finalizing", "if job.fin_epoch != epoch or job.state", "if job.state"),
        Edit(
            "storage.jobs.finalizing",
            "        state,\n        col(Job.fin_epoch) == epoch,\n",
            "        state,\n",
        ),
    ),
    _mutant(
        "lost-answer-taken-for-success",
        "told",
        Edit(
            "storage.jobs.chunks",
            "known.state == ChunkState.DONE and known.part_key == part_key",
            "known.state != ChunkState.PENDING",
        ),
    ),
    _mutant(
        "claim-ignores-cancel",
        "claim",
        Edit(
            "storage.jobs.chunks",
            "            col(Job.cancel).is_(None),\n",
            "",
        ),
    ),
    _mutant(
        "claim-ignores-pause",
        "claim",
        Edit("storage.jobs.chunks", "            col(Job.paused_at).is_(None),\n", ""),
    ),
    _mutant(
        "claim-ignores-rest",
        "claim",
        Edit("storage.jobs.chunks", "            col(Chunk.not_before) <= now_sql(),\n", ""),
    ),
    _mutant(
        "renewal-does-not-extend",
        "I2",
        Edit(
            "storage.jobs.chunks",
            ".values(lease_exp=now_sql() + lease_seconds, **lease",
            ".values(**lease",
        ),
    ),
    _mutant(
        "renewal-without-fence",
        "I2",
        Edit("storage.jobs.chunks", "            col(Chunk.attempt) == lease.attempt,\n", ""),
    ),
    _mutant(
        "reconciler-ignores-expiry",
        "I2",
        Edit(
            "storage.jobs.reconcile",
            "_give_back(session, col(Chunk.lease_exp) <= now_sql())",
            "_give_back(session)",
        ),
    ),
    _mutant(
        "reconciler-never-gives-back",
        "I8",
        Edit(
            "storage.jobs.reconcile",
            "        _give_back(session, col(Chunk.lease_exp) <= now_sql())\n",
            "",
        ),
    ),
    _mutant(
        "finalizes-with-live-chunks",
        "I5 I4",
        Edit(
            "storage.jobs.reconcile",
            ".where(col(Job.state) == JobState.RUNNING, ~live)",
            ".where(col(Job.state) == JobState.RUNNING)",
        ),
    ),
    _mutant(
        "other-bytes-accepted",
        "I3 I4 I5",
        Edit("storage.objects.base", "    if found != sha256:\n", "    if not found:\n"),
        Edit("storage.objects.object_keys", "{a}-{b}/{attempt}.jsonl", "{a}-{b}/part.jsonl"),
    ),
    _mutant(
        "split-loses-a-line",
        "I1",
        Edit(
            "storage.jobs.crashes",
            "_child(chunk, middle, chunk.b)",
            "_child(chunk, middle, max(middle + 1, chunk.b - 1))",
        ),
    ),
    _mutant(
        "attempt-does-not-grow",
        "I2",
        Edit(
            "storage.jobs.chunks", "attempt=col(Chunk.attempt) + 1,", "attempt=col(Chunk.attempt),"
        ),
    ),
    _mutant(
        "commit-before-put",
        "I4",
        Edit(
            "worker.run.commit",
            "    sha256 = write_part(worker.store, key, records)\n",
            "    data = list(records)\n"
            "    sha256 = __import__('hashlib').sha256(b''.join(data)).hexdigest()\n",
        ),
    ),
    _mutant(
        "cancelled-lines-dropped",
        "I4 I5",
        Edit(
            "worker.finish.finalizer",
            "_SETTLED = (ChunkState.DONE, ChunkState.CANCELLED)",
            "_SETTLED = (ChunkState.DONE,)",
        ),
    ),
    _mutant(
        "poison-never-buried",
        "I8",
        Edit("worker.process.reconciler", "    bury_poison(worker)\n", ""),
    ),
    _mutant(
        "stale-plan-reused",
        "I4 I5 I1 I2",
        Edit(
            "storage.objects.object_keys",
            "{plans(job_id)}{epoch}/{a}-{b}.arrow",
            "{plans(job_id)}{a}.arrow",
        ),
    ),
)

MUTANTS = {mutant.name: mutant for mutant in (*REQUIRED, *MORE)}


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles a module from its changed source; no bytecode is read or written."""

    def __init__(self, name: str, path: Path, edits: Sequence[Edit]) -> None:
        super().__init__(name, str(path))
        source = path.read_text()
        for edit in edits:
            source = mutate(source, edit)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self._source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, loaders: dict[str, _Loader]) -> None:
        self._loaders = loaders

    def find_spec(
        self, fullname: str, path: Any, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        loader = self._loaders.get(fullname)
        if loader is None:
            return None
        return importlib.util.spec_from_file_location(fullname, loader.path, loader=loader)


def apply(mutant: Mutant) -> None:
    """Let this process import the changed modules from now on.

    Raises:
        MutantOutdated: the source has changed under the mutant.
        RuntimeError: a module of the product was imported already.
    """
    early = [name for name in sys.modules if name.partition(".")[0] in ("storage", "worker")]
    if early:
        raise RuntimeError(f"imported before the mutant was applied: {sorted(early)[:3]}")
    modules = dict.fromkeys(edit.module for edit in mutant.edits)
    loaders = {
        module: _Loader(
            module,
            next(edit.path for edit in mutant.edits if edit.module == module),
            [edit for edit in mutant.edits if edit.module == module],
        )
        for module in modules
    }
    sys.meta_path.insert(0, _Finder(loaders))
