"""What `tidemill run` keeps of the engine's speed, start-up apart.

    python benchmarks/service/kept.py
    python benchmarks/service/kept.py --rows short --count 4000 --rounds 3

The same prompts, greedy, through ``LLM.chat`` in a process of its own and through ``tidemill run``,
in turns and in changing order. The engine's seconds are those of the call alone, tokenizing
included. A run's are those of the whole command, less those of a run of two rows just before.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random
from statistics import median
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent.parent))
from texts import docstrings

ENGINE = """
import json, sys
from time import perf_counter
from engine import LLM, SamplingParams
path, tokens = sys.argv[1], int(sys.argv[2])
chats = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in open(path)]
llm = LLM("smollm2")
began = perf_counter()
done = llm.chat(chats, SamplingParams(temperature=0, max_tokens=tokens), progress=False)
print(perf_counter() - began)
sys.exit(len(done) != len(chats))
"""


def docstring_rows(count: int) -> list[str]:
    """Docstrings of the standard library, of at most 2,000 characters, in a fixed random order."""
    found = [text for text in docstrings() if 40 < len(text) < 2_000]
    Random(0).shuffle(found)
    if len(found) < count:
        raise SystemExit(f"Only {len(found)} docstrings of a fitting length were found.")
    return found[:count]


def short_rows(count: int) -> list[str]:
    """Questions of a dozen words, all different."""
    texts = islice(docstrings(), 2_000)
    words = sorted({word for text in texts for word in text.split() if word.isalpha()})
    draw = Random(1)
    return [
        f"Row {number}: say {draw.choice(words)} and {draw.choice(words)} in one word."
        for number in range(count)
    ]


# By name: prompts, how many of them, and the most tokens of an answer.
ROWS: dict[str, tuple[Callable[[int], list[str]], int, int]] = {
    "docstrings": (docstring_rows, 2_000, 32),
    "short": (short_rows, 20_000, 4),
}


def write(path: Path, prompts: list[str]) -> Path:
    """A dataset of these prompts."""
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return path


def engine_seconds(rows: Path, tokens: int) -> float:
    """Seconds of ``LLM.chat``."""
    command = [sys.executable, "-c", ENGINE, str(rows), str(tokens)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def run_seconds(rows: Path, tokens: int, home: Path) -> float:
    """Seconds of ``tidemill run``, from its start to its end."""
    output = home / "answers.jsonl"
    command = [sys.executable, "-m", "tidemill", "run", str(rows), "-q", "-o", str(output)]
    command += ["--home", str(home), "--temperature", "0", "--max-tokens", str(tokens)]
    began = perf_counter()
    subprocess.run(command, check=True)
    seconds = perf_counter() - began
    with output.open() as answers, rows.open() as given:
        if sum(1 for _ in answers) != sum(1 for _ in given):
            raise SystemExit("The run's output has not as many lines as its input.")
    return seconds


def measure(prompts: list[str], tokens: int, rounds: int, folder: Path) -> list[dict[str, float]]:
    """One figure a round: seconds of the engine, of a run, of its start, and the share kept."""
    rows = write(folder / "rows.jsonl", prompts)
    two = write(folder / "two.jsonl", prompts[:2])
    run_seconds(two, tokens, folder)
    figures = []
    for number in range(rounds):
        taken: dict[str, float] = {}
        for what in ("engine", "run") if number % 2 == 0 else ("run", "engine"):
            if what == "engine":
                taken[what] = engine_seconds(rows, tokens)
            else:
                taken["start"] = run_seconds(two, tokens, folder)
                taken[what] = run_seconds(rows, tokens, folder)
        taken["kept"] = taken["engine"] / (taken["run"] - taken["start"])
        print({name: round(value, 3) for name, value in taken.items()}, file=sys.stderr, flush=True)
        figures.append(taken)
    return figures


def main() -> None:
    """Parse the options, measure, and print medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rows", choices=ROWS, nargs="+", default=list(ROWS))
    parser.add_argument("--count", type=int, help="rows of each kind")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true", help="one object a kind of rows")
    options = parser.parse_args()
    for name in options.rows:
        make, count, tokens = ROWS[name]
        prompts = make(options.count or count)
        with tempfile.TemporaryDirectory(prefix="tidemill-kept-") as folder:
            figures = measure(prompts, tokens, options.rounds, Path(folder))
        medians = {key: median(figure[key] for figure in figures) for key in figures[0]}
        if options.json:
            print(json.dumps({"rows": name, "count": len(prompts)} | medians))
        else:
            print(
                f"{name}, {len(prompts):,} rows: engine {medians['engine']:.1f} s, run "
                f"{medians['run']:.1f} s of which start {medians['start']:.1f} s; "
                f"{medians['kept']:.1%} kept"
            )


if __name__ == "__main__":
    main()
