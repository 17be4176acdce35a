"""The exit codes of the `tidemill` command."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a script may rely on; docs/cli.md lists them too."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    LINES_FAILED = 3
    BATCH_FAILED = 4
    STOPPED = 5
    LATE = 6
    HUNG_UP = 129
    INTERRUPTED = 130
    READER_GONE = 141
    TERMINATED = 143


HELP = (
    "Exit codes: 0 all lines answered; 1 failed; 2 wrong usage; 3 some lines failed; "
    "4 the batch failed validation; 5 cancelled or expired; 6 a deadline would be missed; "
    "130 Ctrl-C; 143 SIGTERM; 129 SIGHUP."
)


def of_batch(status: str, failed_lines: int) -> ExitCode:
    """The exit code that says how a finished batch ended."""
    if status == "failed":
        return ExitCode.BATCH_FAILED
    if status in ("cancelled", "expired"):
        return ExitCode.STOPPED
    return ExitCode.LINES_FAILED if failed_lines else ExitCode.OK
