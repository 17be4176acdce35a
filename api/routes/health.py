"""Whether the service is alive, and whether it is ready. No API key is needed."""

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from api.context import Context, ContextDep
from storage.errors import ObjectNotFound, StorageError

router = APIRouter(tags=["Health"])

# No object has this key: any response, also "no such object", shows that the store is there.
PROBE_KEY = "probe/ready"


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
def readyz(context: ContextDep, response: Response) -> Readiness:
    """Ready: the database and the object store respond too; 503 says which one does not."""
    database: Reached = "ok" if _database_responds(context) else "unreachable"
    store: Reached = "ok" if _store_responds(context) else "unreachable"
    ready = database == store == "ok"
    response.status_code = 200 if ready else 503
    return Readiness(status="ok" if ready else "unavailable", database=database, object_store=store)


def _database_responds(context: Context) -> bool:
    try:
        with context.database.read() as session:
            context.database.now(session)
    except StorageError:
        return False
    return True


def _store_responds(context: Context) -> bool:
    try:
        context.store.head(PROBE_KEY)
    except ObjectNotFound:
        return True
    except StorageError:
        return False
    return True
