"""Authentication: an API key names a tenant; without configured keys there is only one."""

import hmac
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Annotated, cast

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import ApiError, error_response
from storage.errors import ConfigurationError
from storage.settings import DEFAULT_TENANT, ApiSettings

OPEN_PATHS = frozenset({"/healthz", "/readyz"})

_bearer = HTTPBearer(auto_error=False, description="A key of TIDEMILL_API_KEYS, where any is set.")


def find_tenant(secret: str, keys_by_secret: Mapping[str, str]) -> str | None:
    """The tenant whose key this is, or `None`.

    Every key is compared, each in constant time, so that the time taken does not tell how much of a
    key was right, or which key it was.
    """
    found: str | None = None
    offered = secret.encode(errors="surrogateescape")
    for key, tenant in keys_by_secret.items():
        if hmac.compare_digest(offered, key.encode()):
            found = tenant
    return found


def _refused(message: str) -> ApiError:
    return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def tenant_of(headers: Iterable[tuple[bytes, bytes]], keys_by_secret: Mapping[str, str]) -> str:
    """The tenant of a request; raises `ApiError` 401 where a key is asked for and not given."""
    if not keys_by_secret:
        return DEFAULT_TENANT
    given = next((value for name, value in headers if name == b"authorization"), b"")
    scheme, _, secret = given.strip().partition(b" ")
    if scheme.lower() != b"bearer":
        raise _refused("You didn't provide an API key: send 'Authorization: Bearer YOUR_KEY'.")
    tenant = find_tenant(secret.strip().decode(errors="surrogateescape"), keys_by_secret)
    if tenant is None:
        raise _refused("Incorrect API key provided.")
    return tenant


class Authenticate:
    """Refuses a request without a valid key before anything of its body is read.

    Everything needs a key but the health checks: also what no route matches, and the description.
    """

    def __init__(self, app: ASGIApp, keys_by_secret: Mapping[str, str]) -> None:
        self.app = app
        self._keys_by_secret = keys_by_secret

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                tenant = tenant_of(scope["headers"], self._keys_by_secret)
            except ApiError as error:
                await error_response(error)(scope, receive, send)
                return
            scope.setdefault("state", {})["tenant"] = tenant
        await self.app(scope, receive, send)


async def current_tenant(
    request: Request,
    described: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> str:
    """The tenant of this request, which `Authenticate` has found.

    ``described`` is here for the OpenAPI description alone.
    """
    return cast(str, request.scope["state"]["tenant"])


TenantDep = Annotated[str, Depends(current_tenant)]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``; false for any name but localhost."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_bind(host: str, settings: ApiSettings) -> None:
    """Refuse to serve other machines without a key.

    Raises:
        ConfigurationError: ``host`` is not a loopback address and no API key is configured.
    """
    if is_loopback(host) or settings.keys_by_secret:
        return
    raise ConfigurationError(
        f"Refusing to listen on {host} without an API key: anyone who can reach this machine could "
        "use it. Set TIDEMILL_API_KEYS (for example TIDEMILL_API_KEYS=my-secret), or listen on "
        "127.0.0.1."
    )
