"""What a run comes to. A violation names the invariant, as the protocol does:

- I1 the ranges of chunks that were not split partition the job's lines
- I2 a leased chunk changes by its holder's hand alone, or once its lease has run out; attempts and
  epochs only grow; a job's steps are ended by who holds the epoch
- I3 a done, split or cancelled chunk never changes, nor does a committed part
- I4 a done chunk's part is there, has the committed hash, and holds exactly the chunk's lines;
  nothing is collected before its job has ended a day ago
- I5 a terminal job's output and errors hold each line once, in order, answered with its own answer;
  counts are the sums over chunks and parts
- I6 a terminal job never changes, nor does a published file
- I7 what was created is there
- I8 once faults stop, every job becomes terminal
- estimate: what only asks for its estimate is never run and ends with no line in a file; nothing
  else ends at its plan
- O1 a manifest lists whole shards alone, from the first row on without a gap; they never change
- O2 a shard is written by who holds the lease, once its chunks are settled and in its turn
- O3 a job that has ended has all of its shards, which hold its results line by line, or says that
  it has not
- O4 once faults stop, the manifest says how the job has ended
- claim: nothing is claimed of a job that is stopped, paused or not running, or before its time
- told: whoever says that it has committed a chunk has
- crash: product code raised what nobody expects
"""

from dataclasses import dataclass

BEGIN = 1_700_000_000.0  # the virtual time at which a run starts
CRASH = "crash"


@dataclass(frozen=True, slots=True)
class Violation:
    """An invariant that did not hold, and how it showed."""

    invariant: str
    message: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's end. ``digest`` is a hash of the whole trace."""

    seed: int
    violation: Violation | None
    digest: str
    trace: list[tuple[float, str, str]]
    jobs: int
    struck: int

    def lines(self) -> list[str]:
        """The trace, for people."""
        return [f"{at - BEGIN:11.3f}  {who:<22} {what}" for at, who, what in self.trace]
