"""Random walks through the protocol on the production SQL; the invariants hold at each step.

The walk plays every part at once: clients, planners, workers of which any may be a zombie that
acts long after its lease was lost, finalizers, reconcilers, and time, which passes by moving the
rows' own times into the past.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, invariant, rule
from sqlalchemy import select

from moves import MAX_CRASHES, attempt, counts_are_sums, ranges_partition_the_lines
from storage.database.connection import Database
from storage.database.states import (
    OPEN_JOB_STATES,
    TERMINAL_CHUNK_STATES,
    TERMINAL_JOB_STATES,
    ChunkState,
    JobState,
)
from storage.database.tables import Chunk, Job
from storage.errors import CountsDiffer
from storage.jobs import chunks, crashes, finalizing, jobs, planning
from storage.jobs.chunks import Counts
from storage.jobs.reconcile import reclaim_embedded, reconcile
from storage.registry import files
from walks import LEASE, Walk, commit, finalize, given, new_file, part_of, plan_of

GiveBack = Callable[[Database, str, int], None]
GIVE_BACKS: list[GiveBack] = [chunks.release_chunk, crashes.crash_chunk]
SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=3)


class Protocol(Walk):
    leases: Bundle[Chunk] = Bundle("leases")
    plans: Bundle[Job] = Bundle("plans")
    finals: Bundle[Job] = Bundle("finals")

    def teardown(self) -> None:
        try:
            self.everything_ends()
        finally:
            super().teardown()

    # Clients

    @initialize(sizes=SIZES, more=SIZES)
    def begin(self, sizes: list[int], more: list[int]) -> None:
        for each in (sizes, more):
            self.create(priority=0, window=1e6)
            self.plan_one(each)

    def plan_one(self, sizes: list[int]) -> None:
        job = planning.claim_plan(self.database, "p", lease_seconds=LEASE)
        if job is not None:
            planning.commit_plan(self.database, job.id, job.plan_epoch, plan_of(sizes))

    @rule(priority=st.integers(0, 2), window=st.sampled_from([0.0, 1e6, 1e6, 1e6]))
    def create(self, priority: int, window: float) -> None:
        file = files.insert(self.database, new_file())
        new = jobs.NewJob("acme", "/v1/x", "24h", window, file, priority=priority)
        jobs.create_job(self.database, new)

    @rule(index=st.integers(0, 3))
    def stop(self, index: int) -> None:
        ids = [job.id for job in self.rows(Job)]
        job_id = ids[index % len(ids)]
        attempt(lambda: jobs.request_stop(self.database, "acme", job_id))

    @rule(index=st.integers(0, 3), pause=st.booleans())
    def pause_or_resume(self, index: int, pause: bool) -> None:
        ids = [job.id for job in self.rows(Job)]
        before = jobs.load(self.database, ids[index % len(ids)])
        change = jobs.pause if pause else jobs.resume
        done = attempt(lambda: change(self.database, "acme", before.id))
        assert done == (before.state in OPEN_JOB_STATES and before.cancel is None)

    # Planners

    @rule(target=plans)
    def claim_plan(self) -> Any:
        return given(planning.claim_plan(self.database, "p", lease_seconds=LEASE))

    @rule(job=plans, sizes=SIZES)
    def commit_plan(self, job: Job, sizes: list[int]) -> None:
        before = jobs.load(self.database, job.id)
        mine = (
            before.state == JobState.VALIDATING
            and before.plan_epoch == job.plan_epoch
            and before.cancel is None
        )
        again = before.in_progress_at is not None and before.plan_epoch == job.plan_epoch
        done = attempt(
            lambda: planning.commit_plan(self.database, job.id, job.plan_epoch, plan_of(sizes))
        )
        assert done == (mine or again)

    @rule(job=plans)
    def refuse(self, job: Job) -> None:
        before = jobs.load(self.database, job.id)
        refusal = planning.Refusal([{"code": "empty_batch"}])
        if attempt(lambda: planning.fail_job(self.database, job.id, job.plan_epoch, refusal)):
            assert before.cancel is None

    @rule(job=plans)
    def give_plan_back(self, job: Job) -> None:
        planning.release_plan(self.database, job.id, job.plan_epoch)

    # Workers

    @rule(target=leases)
    def claim(self) -> Any:
        chunk = self.claim_now()
        if chunk is None:
            assert not self.claimable()
        return given(chunk)

    @rule(target=leases)
    def claim_poison(self) -> Any:
        chunk = self.claim_poison_now()
        if chunk is not None:
            assert chunk.b - chunk.a == 1
            assert chunk.crashes >= MAX_CRASHES
        return given(chunk)

    @rule(chunk=leases, share=st.floats(0, 1))
    def renew(self, chunk: Chunk, share: float) -> None:
        mine = self.held(chunk)
        counts = Counts(int((chunk.b - chunk.a) * share), 0, 5, 2, 1)
        renewed = chunks.renew_chunk(
            self.database, chunk.id, chunk.attempt, counts, lease_seconds=LEASE
        )
        assert renewed.still_mine == mine

    @rule(chunk=leases, errors=st.integers(0, 5))
    def commit(self, chunk: Chunk, errors: int) -> None:
        before = chunks.load(self.database, chunk.id)
        mine = self.held(chunk) or (before is not None and before.part_key == part_of(chunk))
        assert attempt(lambda: commit(self.database, chunk, errors)) == mine

    @rule(chunk=leases, end=st.sampled_from(GIVE_BACKS))
    def give_back(self, chunk: Chunk, end: GiveBack) -> None:
        mine = self.held(chunk)
        assert attempt(lambda: end(self.database, chunk.id, chunk.attempt)) == mine

    # Finalizers

    @rule(target=finals)
    def claim_final(self) -> Any:
        return given(finalizing.claim_finalize(self.database, "f", lease_seconds=LEASE))

    @rule(job=finals, wrong=st.booleans())
    def finalize(self, job: Job, wrong: bool) -> None:
        before = jobs.load(self.database, job.id)
        mine = before.state == JobState.FINALIZING and before.fin_epoch == job.fin_epoch
        again = before.state in TERMINAL_JOB_STATES and before.fin_epoch == job.fin_epoch
        try:
            done = attempt(lambda: finalize(self.database, job, extra=int(wrong)))
        except CountsDiffer:
            assert wrong
        else:
            assert done == ((mine and not wrong) or again)

    # Time and reconcilers

    @rule()
    def leases_run_out(self) -> None:
        self.execute("UPDATE chunk SET lease_exp = 0 WHERE lease_exp IS NOT NULL")
        self.execute("UPDATE job SET lease_exp = 0 WHERE lease_exp IS NOT NULL")
        self.reconcile()
        self.waits_are_over()

    @rule()
    def waits_are_over(self) -> None:
        self.execute("UPDATE chunk SET not_before = 0 WHERE state = 'pending'")

    @rule()
    def reconcile(self) -> None:
        reconcile(self.database, max_crashes=MAX_CRASHES)

    @rule()
    def half_an_hour_of_bad_luck(self) -> None:
        """Everything claimed dies, again and again: chunks are split down to single lines."""
        for _ in range(3):
            while self.claim_now() is not None:
                pass
            self.leases_run_out()

    @rule()
    def restart(self) -> None:
        reclaim_embedded(self.database)

    # Invariants

    @invariant()
    def every_invariant(self) -> None:
        with self.database.read() as session:
            jobs_now = list(session.scalars(select(Job)))
            by_job: dict[str, list[Chunk]] = {job.id: [] for job in jobs_now}
            for chunk in session.scalars(select(Chunk)):
                by_job[chunk.job_id].append(chunk)
        for job in jobs_now:
            own = by_job[job.id]
            ranges_partition_the_lines(job, own)
            self.rows_only_go_on(job, own)
            if job.state not in OPEN_JOB_STATES:
                assert job.paused_at is None
                assert all(chunk.state in TERMINAL_CHUNK_STATES for chunk in own)
            if job.state in TERMINAL_JOB_STATES:
                counts_are_sums(job, own)

    def rows_only_go_on(self, job: Job, own: list[Chunk]) -> None:
        """Attempts and epochs only grow, and terminal states are absorbing."""
        for chunk in own:
            assert (chunk.state == ChunkState.LEASED) == (chunk.owner is not None)
            before = self.seen.get(chunk.id)
            self.seen[chunk.id] = chunk.model_dump()
            if before is not None:
                assert chunk.attempt >= before["attempt"]
                assert chunk.crashes >= before["crashes"]
                assert before["engine_crashes"] <= chunk.engine_crashes <= chunk.crashes
                if before["state"] in TERMINAL_CHUNK_STATES:
                    assert self.seen[chunk.id] == before
        before = self.seen.get(job.id)
        self.seen[job.id] = job.model_dump()
        if before is not None:
            assert job.plan_epoch >= before["plan_epoch"]
            assert job.fin_epoch >= before["fin_epoch"]
            if before["state"] in TERMINAL_JOB_STATES:
                assert self.seen[job.id] == before

    def everything_ends(self) -> None:
        """Once faults stop and nobody holds a job back, every job becomes terminal."""
        for job in self.rows(Job):
            attempt(partial(jobs.resume, self.database, "acme", job.id))
        self.leases_run_out()
        for _ in range(200):
            self.waits_are_over()
            self.reconcile()
            self.plan_one([3, 2])
            for claim in (self.claim_now, self.claim_poison_now):
                while (chunk := claim()) is not None:
                    commit(self.database, chunk, 1)
            while job := finalizing.claim_finalize(self.database, "f", lease_seconds=LEASE):
                finalize(self.database, job)
            if all(job.state in TERMINAL_JOB_STATES for job in self.rows(Job)):
                break
        else:
            raise AssertionError("a job never ended")
        self.every_invariant()


TestProtocol = Protocol.TestCase
TestProtocol.settings = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
