"""Every error of the API, and the one table from errors of storage to HTTP.

The wire form is ``{"error": {"message", "type", "param", "code"}}``, all four keys always. Messages
are written here or at the place that raises `ApiError`; the text of an exception never leaves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from starlette.responses import JSONResponse

from storage import errors as domain

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
MAX_PARAM_LENGTH = 128
MAX_SHOWN_PATH = 200


class ApiError(Exception):
    """A response that is an error: an HTTP status and the envelope's four values."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = INVALID_REQUEST,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.type = type
        self.param = param
        self.code = code
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, dict[str, str | None]]:
        """The envelope."""
        return {
            "error": {
                "message": _encodable(self.message),
                "type": self.type,
                "param": None if self.param is None else _encodable(self.param),
                "code": self.code,
            }
        }


def _encodable(text: str) -> str:
    """``text`` with half surrogates replaced, which JSON can name and UTF-8 cannot hold."""
    return text.encode(errors="replace").decode()


def error_response(error: ApiError) -> JSONResponse:
    """The HTTP response that an error is."""
    return JSONResponse(error.body, error.status, error.headers)


def invalid_value(message: str, param: str, code: str = "invalid_value") -> ApiError:
    """A parameter was understood and cannot be served: 400."""
    return ApiError(400, message, param=param, code=code)


def missing_parameter(param: str) -> ApiError:
    """A required parameter is absent: 400."""
    return ApiError(
        400,
        f"Missing required parameter: '{param}'.",
        param=param,
        code="missing_required_parameter",
    )


def no_such_file(file_id: str) -> ApiError:
    """No file of this tenant has the id: 404."""
    return ApiError(404, f"No such File object: {file_id}", param="id")


def no_such_batch(batch_id: str) -> ApiError:
    """No batch of this tenant has the id: 404."""
    return ApiError(404, f"No batch found with id '{batch_id}'.")


def no_such_model(name: str) -> ApiError:
    """No model has this name: 404."""
    message = f"The model '{name}' does not exist or you do not have access to it."
    return ApiError(404, message, param="model", code="model_not_found")


def file_too_large(limit: int) -> ApiError:
    """A file above the configured cap: 413."""
    message = f"The file is larger than the limit of {limit} bytes."
    return ApiError(413, message, param="file", code="file_too_large")


@dataclass(frozen=True)
class ErrorResponse:
    """How one kind of storage error is told to a client; `None` as code: the error's own."""

    status: int
    message: str
    type: str = INVALID_REQUEST
    code: str | None = None


_FAILED = "The server had an error while processing your request."
INTERNAL = ErrorResponse(500, _FAILED, SERVER_ERROR, "internal_error")

# Looked up along the exception's class hierarchy, so the closest entry wins.
DOMAIN_RESPONSES: Mapping[type[domain.StorageError], ErrorResponse] = {
    domain.NotFound: ErrorResponse(404, "There is no such object."),
    domain.StateConflict: ErrorResponse(409, "The object changed meanwhile; read it again."),
    domain.IdempotencyMismatch: ErrorResponse(
        409, "This Idempotency-Key was used before with a different request."
    ),
    domain.NothingToRetry: ErrorResponse(
        400, "No line of this batch failed; there is nothing to retry."
    ),
    domain.RetrySourceGone: ErrorResponse(
        400, "The input or the error file of this batch is gone; its lines cannot be run again."
    ),
    domain.DatabaseUnavailable: ErrorResponse(
        503, "The database cannot be reached; try again in a moment.", SERVER_ERROR
    ),
    domain.ObjectNotFound: ErrorResponse(404, "The content of this file is gone."),
    domain.ObjectStoreUnavailable: ErrorResponse(
        503, "The object store cannot be reached; try again in a moment.", SERVER_ERROR
    ),
    domain.OutOfSpace: ErrorResponse(507, "The server is out of storage space.", SERVER_ERROR),
    domain.StorageError: INTERNAL,
}


def from_domain(error: domain.StorageError) -> ApiError:
    """The HTTP response to an error of storage."""
    found = next(DOMAIN_RESPONSES[cls] for cls in type(error).__mro__ if cls in DOMAIN_RESPONSES)
    return ApiError(found.status, found.message, type=found.type, code=found.code or error.code)


def internal_error() -> ApiError:
    """The response to anything unforeseen: 500."""
    return ApiError(INTERNAL.status, INTERNAL.message, type=INTERNAL.type, code=INTERNAL.code)


def from_status(status: int, method: str, path: str) -> ApiError:
    """The response to what the framework itself refuses: an unknown route, a wrong method, …"""
    path = path[:MAX_SHOWN_PATH]
    match status:
        case 404:
            return ApiError(404, f"Invalid URL ({method} {path})", code="unknown_url")
        case 405:
            return ApiError(405, f"Not allowed to {method} on {path}.", code="method_not_allowed")
        case 413:
            return ApiError(413, "The request body is too large.", code="request_too_large")
        case 400:
            return ApiError(400, _UNPARSEABLE, code="invalid_json")
        case _:
            kind = INVALID_REQUEST if status < 500 else SERVER_ERROR
            return ApiError(status, HTTPStatus(status).phrase, type=kind)


_UNPARSEABLE = (
    "We could not parse the JSON body of your request. It must be a JSON object, "
    "sent with the content type application/json."
)


def from_validation(errors: Sequence[Mapping[str, Any]]) -> ApiError:
    """The response to a request that Pydantic refused: 400 for its first error.

    Args:
        errors: what ``ValidationError.errors()`` lists; FastAPI's carry "body", "query" or "path"
            as the first element of ``loc``.
    """
    error = errors[0]
    kind = str(error["type"])
    loc = [str(name) for name in error["loc"]]
    # A number here is a position in unreadable JSON text, not a parameter.
    if kind == "json_invalid" or loc in ([], ["body"]):
        return ApiError(400, _UNPARSEABLE, code="invalid_json")
    names = loc[1:] if loc[0] in ("body", "query", "path", "header") else loc
    param = ".".join(name for name in names if name != "[key]")[:MAX_PARAM_LENGTH]
    message = str(error["msg"]).rstrip(".")
    if kind == "missing":
        return missing_parameter(param)
    if kind == "extra_forbidden":
        return invalid_value(f"Unknown parameter: '{param}'.", param, "unknown_parameter")
    if kind.endswith(("_type", "_parsing", "_from_float")):
        return invalid_value(f"Invalid type for '{param}': {message}.", param, "invalid_type")
    if kind == "invalid_value":  # made by our own validators, with a whole message
        return invalid_value(f"{message}.", param)
    return invalid_value(f"Invalid '{param}': {message}.", param)
