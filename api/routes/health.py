"""Whether the service is alive, and whether it is ready. No API key is needed."""

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from api.context import Context, ContextDep
from storage.errors import ObjectNotFound, StorageError

router = APIRouter(tags=["Health"])

# No object has this key: any response, also "no such object", shows that the store is there.
PROBE_KEY = "probe/ready"


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Alive: the process answers."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(context: ContextDep) -> JSONResponse:
    """Ready: the database and the object store respond too; 503 says which one does not."""
    checks = {"database": _database_responds(context), "object_store": _store_responds(context)}
    ready = all(checks.values())
    told = {name: "ok" if responds else "unreachable" for name, responds in checks.items()}
    return JSONResponse({"status": "ok" if ready else "unavailable", **told}, 200 if ready else 503)


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
