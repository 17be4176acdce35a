"""What can go wrong while a stack runs."""


class StackError(Exception):
    """The stack cannot do what was asked."""


class NotReady(StackError):
    """A process ended, or was not ready in time; the message ends with its log's last lines."""


class NotRunning(StackError):
    """The process does not run."""


class ProgramMissing(StackError):
    """A program that a server needs is not installed."""


class FolderUnusable(StackError):
    """The stack's folder cannot be written, or another stack holds it."""


class PortInUse(StackError):
    """The port that was asked for is taken."""
