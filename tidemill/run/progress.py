"""How far a job is, on stderr: a live bar on a terminal, elsewhere a line every few seconds."""

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from tidemill.client.shapes import Batch
from tidemill.client.shapes import Progress as BatchProgress
from tidemill.client.uploads import Upload
from tidemill.terminal import printable

LIVE_REDRAWS = 4  # a second: each takes a millisecond of the engine's processor
PLAIN_SECONDS = 5.0
PLAIN_SILENCE_SECONDS = 30.0
PHASES = {
    "validating": "Planning",
    "in_progress": "Running",
    "finalizing": "Collecting results",
    "cancelling": "Cancelling",
}


class Reporter(Protocol):
    """Tells the user how a job goes.

    Attributes:
        every_seconds: how long it can go without an update, while a job runs as it should.
    """

    every_seconds: float

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def say(self, text: str) -> None:
        """Something that happens once."""

    def note(self, text: str) -> None:
        """Something that must not be missed; it stays on the screen, even where all is quiet."""

    def update(self, batch: Batch) -> None:
        """The batch as it is now."""


class LiveReporter:
    """One line that changes in place."""

    every_seconds = 0.0

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description:<18}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
            transient=True,
            refresh_per_second=LIVE_REDRAWS,
        )
        self._task = self._progress.add_task("Starting", total=None, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """Show it in place of the phase."""
        self._progress.update(self._task, description=printable(text), detail="")

    def note(self, text: str) -> None:
        """Print it above the line."""
        _print(self._progress.console, text)

    def update(self, batch: Batch) -> None:
        """Redraw."""
        progress = progress_of(batch)
        self._progress.update(
            self._task,
            description=printable(phase_of(batch)),
            total=progress.lines_total,
            completed=progress.lines_done,
            detail=printable(_news_of(batch)),
        )


class PlainReporter:
    """Prints a line when the phase changes; then every 5 seconds, or every 30 while nothing
    moves."""

    every_seconds = PLAIN_SECONDS

    def __init__(self, console: Console) -> None:
        self._console = console
        self._phase = ""
        self._detail = ""
        self._said_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    def say(self, text: str) -> None:
        """Print it."""
        self.note(text)

    def note(self, text: str) -> None:
        """Print it."""
        _print(self._console, text)

    def update(self, batch: Batch) -> None:
        """Print a line if it is time for one."""
        if batch.finished:
            return
        detail = _news_of(batch)
        quiet = time.monotonic() - self._said_at
        due = PLAIN_SILENCE_SECONDS if detail == self._detail else PLAIN_SECONDS
        phase = phase_of(batch)
        if phase == self._phase and quiet < due:
            return
        self._phase, self._detail, self._said_at = phase, detail, time.monotonic()
        self.say(f"{phase}: {detail}".rstrip(": "))


class SilentReporter(PlainReporter):
    """Says nothing but what must not be missed."""

    every_seconds = PLAIN_SILENCE_SECONDS

    def say(self, text: str) -> None:
        """Nothing."""


def reporter(console: Console, *, quiet: bool = False) -> Reporter:
    """The reporter that fits where stderr goes."""
    if quiet:
        return SilentReporter(console)
    return LiveReporter(console) if console.is_terminal else PlainReporter(console)


def _print(console: Console, text: str) -> None:
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def progress_of(batch: Batch) -> BatchProgress:
    """The batch's progress, from its counts where the service tells no more."""
    if batch.tidemill is not None and batch.tidemill.progress is not None:
        return batch.tidemill.progress
    counts = batch.request_counts
    return BatchProgress(counts.total or None, counts.completed + counts.failed)


def phase_of(batch: Batch) -> str:
    """What is being done about a batch, for a reader."""
    if batch.paused:
        return "Paused"
    if batch.waiting_for:
        return "Waiting"
    return PHASES.get(batch.status, batch.status.capitalize())


def _news_of(batch: Batch) -> str:
    """How far a batch is, or what keeps it from going on."""
    return batch.waiting_for.message if batch.waiting_for else detail_of(batch)


def detail_of(batch: Batch) -> str:
    """Rows, tokens a second and time left, as far as they are known."""
    progress = progress_of(batch)
    known = []
    if progress.lines_total:
        known.append(f"{progress.lines_done:,} of {progress.lines_total:,} rows")
    if progress.tokens_per_second:
        known.append(f"{progress.tokens_per_second:,.0f} tokens/s")
    if progress.seconds_left:
        known.append(f"{duration(progress.seconds_left)} left")
    return ", ".join(known)


def duration(seconds: float) -> str:
    """Seconds for a reader: ``42 s``, ``3 min 20 s``, ``5 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def with_progress(upload: Upload, reporter: Reporter) -> Upload:
    """The upload, which tells the reporter once a second how much was sent."""

    def chunks() -> Iterator[bytes]:
        sent, told = 0, time.monotonic()
        for piece in upload.chunks():
            yield piece
            sent += len(piece)
            if time.monotonic() - told > 1:
                told = time.monotonic()
                reporter.say(f"Uploading, {sent / 1e6:,.0f} MB")

    return Upload(upload.filename, chunks)
