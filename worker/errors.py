"""Every error that the worker raises. ``code`` is stable and meant for programs."""

TEMPORARY_FOLDER = "The folder for temporary files"  # how errors of a full disk name it


class WorkerError(Exception):
    """The worker failed."""

    code = "worker_error"
    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class BodyError(WorkerError):
    """A line's body is not a request that can be run. ``param`` names the parameter at fault."""

    code = "invalid_request"

    def __init__(
        self, message: str, *, param: str | None = None, code: str = "invalid_request"
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code


class PlanRefused(WorkerError):
    """The input as a whole cannot be planned."""

    code = "invalid_request"

    def __init__(self, message: str, *, code: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class ModelUnavailable(WorkerError):
    """A model's files cannot be loaded, so its lines end. The message is for clients."""

    code = "model_unavailable"


class ModelNotReady(WorkerError):
    """A model cannot be loaded now, for a reason that may pass. The message is for clients.

    ``reason`` is the code of the engine's error.
    """

    code = "model_not_ready"
    retryable = True

    def __init__(self, message: str, *, model: str, reason: str) -> None:
        super().__init__(message)
        self.model = model
        self.reason = reason


class LeaseLost(WorkerError):
    """The lease is no longer ours: nothing may be written for it any more."""

    code = "lease_lost"
    retryable = True


class PartMismatch(WorkerError):
    """An object under a part's key differs from what this attempt would write."""

    code = "part_mismatch"


class BrokenPlan(WorkerError):
    """A chunk's plan file cannot be read."""

    code = "broken_plan"


class BrokenResult(WorkerError):
    """The committed parts do not hold every line exactly once."""

    code = "broken_result"


class OutputUnwritable(WorkerError):
    """The caller's place refuses results. The message is for clients."""

    code = "output_not_written"
    retryable = True


class Stopping(WorkerError):
    """The worker or the job is being stopped, so the work was laid down."""

    code = "stopping"
    retryable = True


class TakesLong(WorkerError):
    """The job took longer than it was allowed to, and others wait; it will be begun anew."""

    code = "takes_long"
    retryable = True
