"""Every seeded bug by its name. `test_mutants` checks that each still fits the product's source."""

from simulation.mutants.more import MORE
from simulation.mutants.required import REQUIRED
from simulation.mutants.shards import SHARDS

MUTANTS = {mutant.name: mutant for mutant in (*REQUIRED, *MORE, *SHARDS)}
