"""Every error the command line and the client raise. The message says what to do."""

from tidemill.exits import ExitCode


class TidemillError(Exception):
    """The command could not do what was asked."""

    code = "tidemill_error"
    exit_code = ExitCode.FAILURE

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class UsageError(TidemillError):
    """These options do not go together."""

    code = "usage"
    exit_code = ExitCode.USAGE


class InputError(TidemillError):
    """The input file is not one that Tidemill understands."""

    code = "input_not_understood"


class InputChanged(InputError):
    """This is not the file that the batch was made of."""

    code = "input_changed"


class Interrupted(TidemillError):
    """Interrupted."""

    code = "interrupted"
    exit_code = ExitCode.INTERRUPTED


class OutputNotWritten(TidemillError):
    """Standard output cannot be written."""

    code = "output_not_written"


class BatchFailed(TidemillError):
    """The batch was refused, has expired or was cancelled."""

    code = "batch_failed"
    exit_code = ExitCode.BATCH_FAILED


class NotFinished(TidemillError):
    """The batch has not finished yet."""

    code = "not_finished"


class ResultsNotWritten(TidemillError):
    """The results could not be written; the service still has them."""

    code = "results_not_written"


class PortInUse(TidemillError):
    """Another program is listening on this port."""

    code = "port_in_use"


class CannotListen(TidemillError):
    """This address cannot be listened on."""

    code = "cannot_listen"


class StartFailed(TidemillError):
    """The service did not start."""

    code = "start_failed"


class PullFailed(TidemillError):
    """The model could not be downloaded."""

    code = "pull_failed"


class ClientError(TidemillError):
    """The service could not be used."""

    code = "client_error"
    retryable = False


class InvalidId(ClientError):
    """This cannot be an id."""

    code = "invalid_id"
    exit_code = ExitCode.USAGE


class InvalidAddress(ClientError):
    """The service's URL or key cannot be one."""

    code = "invalid_address"
    exit_code = ExitCode.USAGE


class ServiceUnreachable(ClientError):
    """No service answers there; start one with: tidemill up.

    Attributes:
        refused: no connection was made, so nothing can have happened there.
    """

    code = "service_unreachable"
    retryable = True

    def __init__(self, message: str | None = None, *, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused


class ApiError(ClientError):
    """The service answered with an error.

    Attributes:
        status: HTTP status.
        code: the envelope's code, or its type where there is none.
        param: the parameter it is about.
    """

    def __init__(
        self, message: str, *, status: int, code: str | None = None, param: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code or "api_error"
        self.param = param
        self.retryable = status in (429, 502, 503, 504)
