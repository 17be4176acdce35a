"""More seeded bugs, our own: ``make simulate ARGS="--mutants more"`` plays them."""

from simulation.mutants.edits import Edit, mutant

MORE = (
    mutant(
        "no-epoch-guard-in-commit-plan",
        "I2 I1",
        Edit(
            "storage.jobs.planning",
            "            JobState.RUNNING,\n            col(Job.plan_epoch) == epoch,\n",
            "            JobState.RUNNING,\n",
        ),
    ),
    mutant(
        "no-epoch-guard-in-complete-estimate",
        "I2",
        Edit(
            "storage.jobs.planning",
            "            JobState.COMPLETED,\n            col(Job.plan_epoch) == epoch,\n",
            "            JobState.COMPLETED,\n",
        ),
    ),
    mutant(
        "every-job-ends-as-an-estimate",
        "estimate",
        Edit(
            "storage.database.tables",
            'return bool(self.options.get("estimate"))',
            "return True",
        ),
    ),
    mutant(
        "no-epoch-guard-in-commit-final",
        "I2 I5 I6",
        Edit("storage.jobs.finalizing", "if job.fin_epoch != epoch or job.state", "if job.state"),
        Edit(
            "storage.jobs.finalizing",
            "        state,\n        col(Job.fin_epoch) == epoch,\n",
            "        state,\n",
        ),
    ),
    mutant(
        "lost-answer-taken-for-success",
        "told",
        Edit(
            "storage.jobs.chunks",
            "known.state == ChunkState.DONE and known.part_key == part_key",
            "known.state != ChunkState.PENDING",
        ),
    ),
    mutant(
        "claim-ignores-cancel",
        "claim",
        Edit(
            "storage.jobs.chunks",
            "            col(Job.cancel).is_(None),\n",
            "",
        ),
    ),
    mutant(
        "claim-ignores-pause",
        "claim",
        Edit("storage.jobs.chunks", "            col(Job.paused_at).is_(None),\n", ""),
    ),
    mutant(
        "claim-ignores-rest",
        "claim",
        Edit("storage.jobs.chunks", "            col(Chunk.not_before) <= now_sql(),\n", ""),
    ),
    mutant(
        "renewal-does-not-extend",
        "I2",
        Edit(
            "storage.jobs.chunks",
            ".values(lease_exp=now_sql() + lease_seconds, **lease",
            ".values(**lease",
        ),
    ),
    mutant(
        "renewal-without-fence",
        "I2",
        Edit("storage.jobs.chunks", "            col(Chunk.attempt) == lease.attempt,\n", ""),
    ),
    mutant(
        "reconciler-ignores-expiry",
        "I2",
        Edit(
            "storage.jobs.reconcile",
            "_give_back(session, col(Chunk.lease_exp) <= now_sql())",
            "_give_back(session)",
        ),
    ),
    mutant(
        "reconciler-never-gives-back",
        "I8",
        Edit(
            "storage.jobs.reconcile",
            "        _give_back(session, col(Chunk.lease_exp) <= now_sql())\n",
            "",
        ),
    ),
    mutant(
        "finalizes-with-live-chunks",
        "I5 I4",
        Edit(
            "storage.jobs.reconcile",
            ".where(col(Job.state) == JobState.RUNNING, ~live)",
            ".where(col(Job.state) == JobState.RUNNING)",
        ),
    ),
    mutant(
        "other-bytes-accepted",
        "I3 I4 I5",
        Edit("storage.objects.base", "    if found != sha256:\n", "    if not found:\n"),
        Edit("storage.objects.object_keys", "{a}-{b}/{attempt}.jsonl", "{a}-{b}/part.jsonl"),
    ),
    mutant(
        "split-loses-a-line",
        "I1",
        Edit(
            "storage.jobs.crashes",
            "_child(chunk, middle, chunk.b)",
            "_child(chunk, middle, max(middle + 1, chunk.b - 1))",
        ),
    ),
    mutant(
        "attempt-does-not-grow",
        "I2",
        Edit(
            "storage.jobs.chunks", "attempt=col(Chunk.attempt) + 1,", "attempt=col(Chunk.attempt),"
        ),
    ),
    mutant(
        "commit-before-put",
        "I4",
        Edit(
            "worker.run.commit",
            "    sha256 = write_part(worker.store, key, records)\n",
            "    data = list(records)\n"
            "    sha256 = __import__('hashlib').sha256(b''.join(data)).hexdigest()\n",
        ),
    ),
    mutant(
        "cancelled-lines-dropped",
        "I4 I5",
        Edit(
            "worker.finish.settled",
            "SETTLED = (ChunkState.DONE, ChunkState.CANCELLED)",
            "SETTLED = (ChunkState.DONE,)",
        ),
    ),
    mutant(
        "unplanned-lines-dropped",
        "I5",
        Edit(
            "worker.finish.unplanned",
            "            if line.number in chosen:\n",
            "            if line.number in chosen and line.number > 1:\n",
        ),
    ),
    mutant(
        "stopped-before-its-plan-ends-at-once",
        "I5 I6",
        Edit(
            "storage.jobs.reconcile",
            "            state=JobState.FINALIZING,\n            finalizing_at=now_sql(),\n",
            "            state=JobState.CANCELLED,\n            cancelled_at=now_sql(),\n",
        ),
    ),
    mutant(
        "poison-never-buried",
        "I8",
        Edit("worker.process.reconciler", "    bury_poison(worker)\n", ""),
    ),
    mutant(
        "stale-plan-reused",
        "I4 I5 I1 I2",
        Edit(
            "storage.objects.object_keys",
            "{plans(job_id)}{epoch}/{a}-{b}.arrow",
            "{plans(job_id)}{a}.arrow",
        ),
    ),
)
