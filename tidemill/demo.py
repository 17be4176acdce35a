"""``make demo``: a bulk job on a real model, from start to end.

Builds a job from the docstrings of this Python's standard library, starts ``tidemill up`` on a
fresh home folder, and runs the job with the official ``openai`` client, as any program would.
"""

import argparse
import ast
import random
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
from openai import OpenAI
from rich.console import Console
from rich.table import Table
from rich.text import Text

from storage.datasets.readers.results import read_results
from tidemill.client.shapes import Batch, Usage
from tidemill.errors import StartFailed, TidemillError
from tidemill.run.dataset_errors import dataset_errors
from tidemill.run.progress import duration, reporter

SYSTEM = (
    "You are a technical writer. You are given the documentation of one item of the Python "
    "standard library. Summarize it in one sentence, in plain words, for a reader who has never "
    "used it. Do not repeat its name, do not quote code, and do not add examples of your own."
)
MODEL = "smollm2"
SHOWN_ROWS = 6
PLAIN_WIDTH = 120
MIN_CHARACTERS, MAX_CHARACTERS = 60, 600
POLL_SECONDS = 0.5
SKIPPED_FOLDERS = frozenset({"site-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"})
MAX_SOURCE_BYTES = 400_000
MAX_PER_MODULE = 4


@dataclass(frozen=True, slots=True)
class Docstring:
    """A documented item, e.g. ``textwrap.dedent``, and what its docstring says."""

    name: str
    text: str


def docstrings(count: int) -> list[Docstring]:
    """``count`` different docstrings of the standard library; the same on every call."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    paths = sorted(
        path
        for path in folder.rglob("*.py")
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(folder).parts)
        and path.stat().st_size < MAX_SOURCE_BYTES
    )
    random.Random(0).shuffle(paths)
    by_text: dict[str, Docstring] = {}
    names: set[str] = set()
    for path in paths:
        module = ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
        for item in list(_docstrings_of(path, module))[:MAX_PER_MODULE]:
            if item.name not in names and item.text not in by_text:
                names.add(item.name)
                by_text[item.text] = item
        if len(by_text) >= count:
            break
    chosen = list(by_text.values())[:count]
    random.Random(0).shuffle(chosen)
    return chosen


def _docstrings_of(path: Path, module: str) -> Iterator[Docstring]:
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError):
        return
    yield from _documented(tree, module)


def _documented(node: ast.AST, name: str) -> Iterator[Docstring]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(child) or ""
            if MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
                yield Docstring(f"{name}.{child.name}", text)
            yield from _documented(child, f"{name}.{child.name}")


def write_requests(items: list[Docstring], path: Path, max_tokens: int) -> None:
    """The items as a batch's input file."""
    with path.open("wb") as file:
        for item in items:
            messages = [
                {"role": "system", "content": SYSTEM},
                {"role": "user", "content": item.text},
            ]
            request = {
                "custom_id": item.name,
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {
                    "model": MODEL,
                    "messages": messages,
                    "max_tokens": max_tokens,
                    "temperature": 0,
                },
            }
            file.write(msgspec.json.encode(request) + b"\n")


@contextmanager
def service(home: Path) -> Iterator[str]:
    """``tidemill up`` in a process of its own, on a free port; its URL, with ``/v1``."""
    command = [sys.executable, "-m", "tidemill.cli.main", "up", "--port", "0", "--home", str(home)]
    with (home / "up.log").open("w+") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        try:
            said = process.stdout.readline() if process.stdout else ""
            url = re.search(r"http://\S+/v1", said)
            if url is None:
                log.seek(0)
                raise StartFailed(f"'tidemill up' did not start:\n{log.read()[-2000:]}")
            yield url.group()
        finally:
            process.terminate()
            process.wait()
            if process.stdout:
                process.stdout.close()


def run(client: OpenAI, requests: Path, console: Console) -> Batch:
    """Upload, create, and poll until the batch has finished."""
    with requests.open("rb") as file:
        uploaded = client.files.create(file=file, purpose="batch")
    created = client.batches.create(
        input_file_id=uploaded.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    with reporter(console) as report:
        while True:
            retrieved = client.batches.retrieve(created.id)
            batch = msgspec.json.decode(retrieved.to_json(), type=Batch)
            report.update(batch)
            if batch.finished:
                return batch
            time.sleep(POLL_SECONDS)


def show(client: OpenAI, batch: Batch, items: list[Docstring], console: Console) -> None:
    """Some of the questions and answers as a table."""
    if batch.output_file_id is None:
        raise TidemillError(f"The batch is {batch.status} and has no output.")
    content = client.files.content(batch.output_file_id).content
    texts = {item.name: item.text for item in items}
    table = Table(show_lines=True)
    table.add_column("item", overflow="fold", ratio=2)
    table.add_column("documentation", ratio=3)
    table.add_column("answer", ratio=3)
    with dataset_errors():
        results = list(read_results([content]))
    for result in results[:SHOWN_ROWS]:
        name = result.custom_id or ""
        asked, answered = (" ".join(text.split()) for text in (texts[name], result.text or ""))
        table.add_row(Text(name), Text(asked), Text(answered))
    console.print(table)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--rows", type=int, default=240, help="rows of the job")
    parser.add_argument("--max-tokens", type=int, default=48, help="most tokens of an answer")
    given = parser.parse_args()
    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    console = Console(highlight=False, width=width)
    try:
        _demo(given.rows, given.max_tokens, console)
    except TidemillError as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _demo(rows: int, max_tokens: int, console: Console) -> None:
    items = docstrings(rows)
    console.print(f"{len(items)} docstrings of the standard library, each to be summarized.")
    with tempfile.TemporaryDirectory(prefix="tidemill-demo-") as folder:
        requests = Path(folder) / "requests.jsonl"
        write_requests(items, requests, max_tokens)
        with service(Path(folder)) as url:
            console.print(f"'tidemill up' listens on {url}; the openai client does the rest.")
            started = time.monotonic()
            with OpenAI(base_url=url, api_key="none-needed") as client:
                batch = run(client, requests, console)
                seconds = time.monotonic() - started
                show(client, batch, items, console)
    usage = batch.usage or Usage()
    console.print(
        f"{batch.request_counts.completed} of {batch.request_counts.total} rows in "
        f"{duration(seconds)}: {usage.total_tokens:,} tokens, "
        f"{usage.total_tokens / seconds:,.0f} tokens a second, "
        f"{usage.cached_share:.1%} of the prompt tokens from the prefix cache",
        soft_wrap=True,
    )
    if batch.request_counts.completed < batch.request_counts.total:
        raise TidemillError("Some rows failed.")


if __name__ == "__main__":
    main()
