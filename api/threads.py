"""Blocking context managers, used from the event loop."""

from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeVar

import anyio
from anyio import to_thread

T = TypeVar("T")


@asynccontextmanager
async def in_thread(manager: AbstractContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave ``manager`` in worker threads.

    Leaving is shielded: a cancelled request (the client disconnected, the server stops) still
    cleans up first. FastAPI's `contextmanager_in_threadpool` does not.
    """
    value = await to_thread.run_sync(manager.__enter__)
    try:
        yield value
    except BaseException as error:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(manager.__exit__, type(error), error, error.__traceback__)
        raise
    else:
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(manager.__exit__, None, None, None)
