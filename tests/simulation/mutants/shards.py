"""Seeded bugs of results in a client's place: guards of theirs, left out.

Two more take a writer that comes back within some milliseconds of virtual time, while the next one
is at work, which few seeds have: the epoch's fence, and the manifest's second look. Tests of their
own force them (tests/storage/jobs/outputs, tests/worker/shards).
"""

from simulation.mutants.edits import Edit, mutant

LEASES = "storage.jobs.outputs.leases"

SHARDS = (
    mutant(
        "shard-before-its-chunks",
        "O2 I4",
        Edit(LEASES, "        ~unsettled,\n", ""),
    ),
    mutant(
        "shard-before-its-turn",
        "O2 O1 I4",
        Edit(LEASES, "        ~earlier,\n", ""),
    ),
    mutant(
        "finalizes-before-its-shards",
        "O3",
        Edit(LEASES, "    return or_(~waiting, func", "    return or_(~waiting, waiting, func"),
    ),
    mutant(
        "shard-settled-before-it-is-there",
        "O1",
        Edit(
            "worker.shards.write",
            "    with place.writer(name) as writer:\n",
            "    sha256 = '0'\n    with place.writer(name) as writer:\n",
        ),
        Edit(
            "worker.shards.write",
            "    size, sha256 = writer.size, writer.sha256\n",
            "    size = writer.size\n",
        ),
    ),
    mutant(
        "manifest-lists-what-waits",
        "O1",
        Edit(
            "storage.jobs.outputs.views",
            "[each for each in shards if each.state == ShardState.WRITTEN]",
            "shards",
        ),
    ),
    mutant(
        "closed-before-the-manifest",
        "O4",
        Edit(
            "worker.shards.write",
            "    write_manifest(worker.database, place, claimed.output)\n"
            "    if claimed.job.state == JobState.COMPLETED:",
            "    leases.close_output(worker.database, claimed.job.id, claimed.epoch)\n"
            "    write_manifest(worker.database, place, claimed.output)\n"
            "    if claimed.job.state == JobState.COMPLETED:",
        ),
    ),
)
