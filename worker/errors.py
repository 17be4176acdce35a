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
    """A model's files cannot be loaded. The message is for clients; the log has the cause."""

    code = "model_unavailable"


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


class Stopping(WorkerError):
    """The worker or the job is being stopped, so the work was laid down."""

    code = "stopping"
    retryable = True


class TakesLong(WorkerError):
    """The job took longer than it was allowed to, and others wait; it will be begun anew."""

    code = "takes_long"
    retryable = True


class EngineUnavailable(WorkerError):
    """The model's engine did not start; the reason is logged, and it is tried again later."""

    code = "engine_unavailable"
    retryable = True
