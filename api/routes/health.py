"""Whether the service is alive, and whether it is ready. No API key is needed."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from api.probes import Probes

router = APIRouter(tags=["Health"])

Reached = Literal["ok", "unreachable"]


class Health(BaseModel):
    """The process responds."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether requests can be served, and what is missing."""

    status: Literal["ok", "unavailable"]
    database: Reached
    object_store: Reached


@router.get("/healthz")
async def healthz() -> Health:
    """Alive: the process responds."""
    return Health()


@router.get("/readyz", responses={503: {"model": Readiness, "description": "Not ready."}})
async def readyz(request: Request, response: Response) -> Readiness:
    """Ready: the database and the object store respond too; 503 says which one does not."""
    probes: Probes = request.app.state.probes
    found = await asyncio.gather(probes.database.responds(), probes.store.responds())
    ready = all(found)
    response.status_code = 200 if ready else 503
    return Readiness(
        status="ok" if ready else "unavailable",
        database=_reached(found[0]),
        object_store=_reached(found[1]),
    )


def _reached(responds: bool) -> Reached:
    return "ok" if responds else "unreachable"
