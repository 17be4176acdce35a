"""How uvicorn serves the API."""

from typing import Any

from fastapi import FastAPI

from api.server.connection import Connection
from api.server.limits import LimitedConfig
from storage.settings import ApiSettings

GRACE_SECONDS = 5


def server_config(app: FastAPI, settings: ApiSettings, **more: Any) -> LimitedConfig:
    """The configuration of a ``uvicorn.Server`` for the API.

    Args:
        app: what `api.app.create_app` made.
        settings: the limits of a connection, and how many there may be.
        more: uvicorn's own arguments, such as ``port``.
    """
    return LimitedConfig(
        settings,
        app=app,
        http=Connection,
        ws="none",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        **more,
    )
