"""Whether the service is alive, and whether it can do its work. No key is asked for."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.context import Context, ContextDep
from storage.errors import ObjectNotFound, StorageError

router = APIRouter(tags=["Health"])

# Nothing is ever written there: any answer, "no such object" included, is a sign of life.
PROBE_KEY = "probe/ready"


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive: the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(context: ContextDep) -> JSONResponse:
    """Ready: the database and the object store answer too; 503 says which one does not."""
    parts = {"database": _database_answers(context), "object_store": _store_answers(context)}
    ready = all(parts.values())
    told = {name: "ok" if answers else "unreachable" for name, answers in parts.items()}
    return JSONResponse({"status": "ok" if ready else "unavailable", **told}, 200 if ready else 503)


def _database_answers(context: Context) -> bool:
    try:
        with context.database.read() as session:
            context.database.now(session)
    except StorageError:
        return False
    return True


def _store_answers(context: Context) -> bool:
    try:
        context.store.head(PROBE_KEY)
    except ObjectNotFound:
        return True
    except StorageError:
        return False
    return True
