"""The seeded bugs that the protocol names. The tests demand that the simulation catches each."""

from simulation.mutants.edits import Edit, mutant

_FENCE = "            col(Chunk.attempt) == attempt,\n"
_GUARD = (
    "            col(Chunk.state) == ChunkState.LEASED,\n        )\n        .values(state=after"
)

REQUIRED = (
    mutant(
        "no-attempt-fence",
        "I2 I3 I4 I5",
        Edit("storage.jobs.transitions", _FENCE, ""),
    ),
    mutant(
        "no-leased-guard",
        "I2 I3 I4 I5 I6",
        Edit("storage.jobs.transitions", _GUARD, "        )\n        .values(state=after"),
    ),
    mutant(
        "part-key-without-attempt",
        "I3 I4 I5 I8",
        Edit("storage.objects.object_keys", "{a}-{b}/{attempt}.jsonl", "{a}-{b}/part.jsonl"),
    ),
    mutant(
        "eager-garbage-collection",
        "I4 I5",
        Edit("storage.jobs.garbage", "            col(Job.state).in_(TERMINAL_JOB_STATES),\n", ""),
        Edit("storage.jobs.garbage", "            ended <= now_sql() - older_than,\n", ""),
    ),
    mutant(
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
    mutant(
        "no-split",
        "I8",
        Edit(
            "storage.jobs.crashes",
            "if crashes >= SPLIT_CRASHES and chunk.b",
            "if False and chunk.b",
        ),
    ),
    mutant(
        "result-key-without-epoch",
        "I5 I6",
        Edit(
            "storage.objects.object_keys",
            "{results(job_id)}{epoch}/{kind}",
            "{results(job_id)}{kind}",
        ),
    ),
)
