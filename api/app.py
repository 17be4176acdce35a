"""The REST service: everything under ``/v1``, and the health checks."""

from typing import cast

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from api.auth import Authenticate
from api.context import Context
from api.description import DescribedApp
from api.errors import (
    ApiError,
    error_response,
    from_domain,
    from_status,
    from_validation,
    internal_error,
)
from api.methods import allowed_methods
from api.metrics import CountRequests, RequestMetrics
from api.middleware import (
    REQUEST_ID_HEADER,
    AccessLog,
    BodyLimit,
    HeadAsGet,
    request_id_of,
    wants_head,
)
from api.routes import batches, docs, files, health, lifecycle, models
from api.sites import CheckSite
from storage.datasets.inputs.allowed import AllowedUris
from storage.datasets.outputs.places import OutputPlaces
from storage.errors import StorageError
from storage.settings import ApiSettings
from storage.stores import Stores
from storage.wakeups import Wakeups

MAX_JSON_BYTES = 1024 * 1024
STREAMED = frozenset({("POST", "/v1/files")})

log = structlog.get_logger("tidemill.api")


def create_app(
    settings: ApiSettings,
    *,
    stores: Stores,
    wakeups: Wakeups,
    metrics: RequestMetrics | None = None,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        settings: size limits and API keys; without keys every caller is the default tenant (see
            `api.auth.check_bind` before listening for other machines, and `api.sites`).
        stores: the database, migrated, and where uploads go; closed by the caller.
        wakeups: sent for each new batch, after the commit and at best effort.
        metrics: counts the requests, where given.

    Raises:
        ConfigurationError: a prefix of datasets is none, or is not to be read by tenants.
    """
    app = DescribedApp()
    # Refused at the start, not by the first batch.
    AllowedUris.of(settings.dataset_prefixes).check_apart(stores.settings)
    OutputPlaces.of(settings.output_prefixes).check_apart(stores.settings)
    app.state.context = Context(settings, stores, wakeups)
    app.state.probes = health.Probes(stores)
    for router in (files.router, batches.router, lifecycle.router, models.router):
        app.include_router(router, prefix="/v1")
    app.include_router(health.router)
    app.include_router(docs.router)
    _handle_errors(app)
    # From the innermost to the outermost.
    app.add_middleware(BodyLimit, limit=MAX_JSON_BYTES, streamed=STREAMED)
    app.add_middleware(HeadAsGet)
    app.add_middleware(Authenticate, keys_by_secret=settings.keys_by_secret)
    app.add_middleware(CheckSite, settings=settings)
    app.add_middleware(AccessLog)
    if metrics is not None:
        app.add_middleware(CountRequests, metrics=metrics)
    return app


def _handle_errors(app: FastAPI) -> None:
    """Put every error into the envelope, whoever raised it."""

    def on_api_error(request: Request, error: Exception) -> JSONResponse:
        return error_response(cast(ApiError, error))

    def on_domain_error(request: Request, error: Exception) -> JSONResponse:
        refusal = from_domain(cast(StorageError, error))
        if refusal.status >= 500:
            _log_failure(request, cast(StorageError, error))
        return error_response(refusal)

    def on_validation(request: Request, error: Exception) -> JSONResponse:
        return error_response(from_validation(cast(RequestValidationError, error).errors()))

    def on_http(request: Request, error: Exception) -> JSONResponse:
        refused = cast(HTTPException, error)
        method = "HEAD" if wants_head(request.scope) else request.method
        refusal = from_status(refused.status_code, method, request.scope["path"])
        refusal.headers.update(refused.headers or {})
        if refused.status_code == 405:  # the framework names those of one route alone
            refusal.headers["Allow"] = ", ".join(allowed_methods(app.routes, request.scope))
        return error_response(refusal)

    def on_disconnect(request: Request, error: Exception) -> Response:
        # The client is gone; the status is only for the access log.
        return Response(status_code=499)

    def on_anything(request: Request, error: Exception) -> JSONResponse:
        # The server logs the exception itself; the access log never sees this response.
        response = error_response(internal_error())
        response.headers[REQUEST_ID_HEADER] = request_id_of(request.scope)
        return response

    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(ApiError, on_api_error)
    app.add_exception_handler(StorageError, on_domain_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_anything)


def _log_failure(request: Request, error: StorageError) -> None:
    """Log an unavailable server in one line, anything else with its traceback."""
    log.error(
        "storage_failed",
        request_id=request_id_of(request.scope),
        code=error.code,
        exc_info=None if error.retryable else error,
    )
