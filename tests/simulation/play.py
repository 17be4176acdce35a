"""Plays one seed: a world, with the product's clocks, threads, randomness and logs replaced."""

import hashlib

from simulation.outcome import CRASH, Outcome, Violation
from simulation.processes import slow_polls
from simulation.virtual.database import Memory
from simulation.virtual.places import in_memory
from simulation.virtual.stdlib import installed
from simulation.world import World


def play(seed: int, database: Memory) -> Outcome:
    """Play one seed; ``database`` is emptied first."""
    world = World(seed, database)
    with slow_polls(), in_memory(world.store), installed(world.scheduler, seed, world.heard):
        database.begin(world.points, world.rows.step)
        try:
            world.run()
        except Exception as error:  # noqa: BLE001 - a client or a thread of the product raised it
            world.violation = world.violation or Violation(CRASH, repr(error))
        finally:
            world.scheduler.close()
            database.points = None
    trace = world.scheduler.trace
    digest = hashlib.sha256("\n".join(map(repr, trace)).encode()).hexdigest()
    return Outcome(seed, world.violation, digest, trace, len(world.rows.jobs), world.points.struck)
