"""``make soak ARGS="--minutes 30"``: the real stack under load and under faults.

Ends with 1 if any promise was broken; the stack's folder, with its logs, then stays. First it
measures what wiping the broker costs: slices in calm and with a FLUSHALL a minute, in turn.
"""

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

from integration.harness.arena import open_arena
from integration.soak.phases import SETTINGS, Soak


def main() -> int:
    """Parse, run, print; the exit code."""
    parser = argparse.ArgumentParser(description="The real stack under load and under faults.")
    parser.add_argument("--minutes", type=float, default=5.0, help="of load; default 5")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=None, help="of load and faults")
    parser.add_argument("--folder", type=Path, default=None, help="keep everything there")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    args = parser.parse_args()
    seed = random.SystemRandom().randrange(10_000) if args.seed is None else args.seed
    folder = args.folder or Path(tempfile.mkdtemp(prefix="tidemill-soak-"))
    inputs = folder / "inputs"
    inputs.mkdir(parents=True)
    print(f"seed {seed}, logs in {folder}", file=sys.stderr, flush=True)
    with open_arena(folder, workers=args.workers, **SETTINGS) as arena:
        result = Soak(arena, inputs, seed).run(args.minutes)
    print(json.dumps(result.json(), indent=2) if args.json else result.table())
    if result.kept and args.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    return 0 if result.kept else 1


if __name__ == "__main__":
    sys.exit(main())
