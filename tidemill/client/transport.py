"""HTTP for the client: sent again where that is safe, errors typed, JSON parsed."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, TypeVar

import httpx
import msgspec

from tidemill.client.addresses import LOOPBACK, checked_key, checked_url
from tidemill.client.shapes import Envelope, Problem
from tidemill.errors import ApiError, ClientError, ServiceUnreachable

T = TypeVar("T")

READ_BYTES = 256 * 1024
CONNECT_SECONDS = 3.0
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 0.25, 4.0
# Of a service that has never answered: most likely there is none, and somebody waits to hear so.
FIRST_RETRIES = 1


class Transport:
    """Connections to one service.

    Args:
        url: where it listens.
        api_key: sent as a Bearer token.
        timeout: seconds to wait for each response.
        retries: how often a request that failed for a passing reason is sent again.

    Raises:
        ServiceUnreachable: from every method, where nothing answers.
        ApiError: from every method, where the response is an error.
    """

    def __init__(self, url: str, api_key: str | None, *, timeout: float, retries: int) -> None:
        root = checked_url(url)
        headers = {"Authorization": f"Bearer {checked_key(api_key)}"} if api_key else None
        self.url = str(root.copy_with(userinfo=b"")).rstrip("/")
        self.retries = retries
        self._answered = False
        self._http = httpx.Client(
            base_url=str(root).rstrip("/") + "/v1/",
            headers=headers,
            timeout=httpx.Timeout(timeout, connect=min(timeout, CONNECT_SECONDS)),
            # Loopback is never behind a proxy, whatever the environment says.
            trust_env=root.host not in LOOPBACK,
        )

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, kind: type[T], params: Mapping[str, str] | None = None) -> T:
        """Read a resource.

        Raises:
            ClientError: the response is not of this kind.
        """
        return _parsed(self._send(partial(self._http.get, path, params=params), safe=True), kind)

    def post(
        self,
        path: str,
        kind: type[T],
        *,
        body: Mapping[str, Any] | None = None,
        content: Callable[[], Iterator[bytes]] | None = None,
        headers: Mapping[str, str] | None = None,
        safe: bool,
    ) -> T:
        """Create or change a resource.

        Args:
            body: sent as JSON.
            content: makes the body anew for every try, in place of ``body``.
            safe: whether the service may get the request twice.

        Raises:
            ClientError: the response is not of this kind.
        """

        def send() -> httpx.Response:
            data = content() if content is not None else None
            return self._http.post(path, json=body, content=data, headers=headers)

        return _parsed(self._send(send, safe=safe), kind)

    def delete(self, path: str) -> None:
        """Delete a resource."""
        self._send(partial(self._http.delete, path), safe=False)

    @contextmanager
    def stream(self, path: str) -> Iterator[Iterator[bytes]]:
        """A resource's content in pieces of any size.

        Where the connection breaks off, as the service ends one whose reader stands still, the rest
        is asked for.
        """
        with ExitStack() as stack:
            yield self._pieces(stack, path, self._open(stack, path, 0))

    def _open(self, stack: ExitStack, path: str, start: int) -> httpx.Response:
        """A response whose content is yet to be read, from a byte on if the service can do that."""
        headers = {"Range": f"bytes={start}-"} if start else None
        try:
            response = stack.enter_context(self._http.stream("GET", path, headers=headers))
            self._answered = True
            if not response.is_success:
                response.read()
                raise _api_error(response)
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        return response

    def _pieces(self, stack: ExitStack, path: str, first: httpx.Response) -> Iterator[bytes]:
        """The content of a response, and of further ones where it breaks off."""
        response: httpx.Response | None = first
        got = tries = 0
        failure: ClientError
        while True:
            try:
                response = response or self._open(stack, path, got)
                at = got if response.status_code == httpx.codes.PARTIAL_CONTENT else 0
                for piece in response.iter_bytes(READ_BYTES):
                    new = piece[max(0, got - at) :]
                    at += len(piece)
                    if new:
                        got, tries = at, 0
                        yield new
                return
            except httpx.RequestError as error:
                failure = self._unreachable(error)
            except ServiceUnreachable as error:
                failure = error
            except ApiError as error:
                if not error.retryable:
                    raise
                failure = error
            stack.close()
            response = None
            if tries == self.retries:
                raise failure
            time.sleep(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**tries))
            tries += 1

    def _send(self, send: Callable[[], httpx.Response], *, safe: bool) -> httpx.Response:
        """Send a request, again after failures that pass.

        One that is not safe to repeat is repeated only where the connection itself was refused.
        """
        tries = 0
        while True:
            try:
                return self._once(send)
            except ApiError as error:
                again = safe and error.retryable
                failure: ClientError = error
            except ServiceUnreachable as error:
                again = safe or error.refused
                failure = error
            most = self.retries if self._answered else min(self.retries, FIRST_RETRIES)
            if not again or tries == most:
                raise failure
            time.sleep(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**tries))
            tries += 1

    def _once(self, send: Callable[[], httpx.Response]) -> httpx.Response:
        try:
            response = send()
        except httpx.RequestError as error:
            raise self._unreachable(error) from error
        self._answered = True
        if not response.is_success:
            raise _api_error(response)
        return response

    def _unreachable(self, error: httpx.RequestError) -> ServiceUnreachable:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ServiceUnreachable(
                f"No service answers at {self.url}. Start one with 'tidemill up', or name another "
                "with --url or TIDEMILL_URL.",
                refused=True,
            )
        return ServiceUnreachable(f"The connection to {self.url} broke off.")


def _parsed(response: httpx.Response, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(response.content, type=kind)
    except msgspec.MsgspecError as error:
        url = response.url.copy_with(userinfo=b"")
        raise ClientError(f"{url} did not answer as a Tidemill service does; is it one?") from error


def _api_error(response: httpx.Response) -> ApiError:
    try:
        problem = msgspec.json.decode(response.content, type=Envelope).error
    except msgspec.MsgspecError:
        problem = Problem(message=f"The service answered {response.status_code} without a reason.")
    return ApiError(
        problem.message,
        status=response.status_code,
        code=problem.code or problem.type,
        param=problem.param,
    )
