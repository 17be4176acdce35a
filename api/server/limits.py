"""uvicorn's configuration, and with it the limits of a connection."""

import asyncio
import resource
from typing import Any

import uvicorn

from storage.settings import ApiSettings


class LimitedConfig(uvicorn.Config):
    """What uvicorn hands to every connection.

    Args:
        settings: the limits of a connection, and how many there may be.
        given: uvicorn's own arguments.

    Attributes:
        settings: as given.
        max_connections: of the settings, but at most half of the files this process may open.
        heard: every open connection, in the order in which they were last heard.
    """

    def __init__(self, settings: ApiSettings, **given: Any) -> None:
        super().__init__(**given)
        self.settings = settings
        self.heard: dict[asyncio.Protocol, None] = {}
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = settings.max_connections
        self.max_connections = most if files < 0 else max(1, min(most, files // 2))
