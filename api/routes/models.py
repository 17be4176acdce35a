"""``/v1/models``: what a batch's lines may name as their model."""

from fastapi import APIRouter

from api.auth import TenantDep
from api.context import ContextDep
from api.errors import no_such_model
from api.schemas.models import ModelList, ModelObject
from storage.errors import NotFound
from storage.registry import models

router = APIRouter(prefix="/models", tags=["Models"])


@router.get("")
def list_models(context: ContextDep, tenant: TenantDep) -> ModelList:
    """List the models."""
    return ModelList(data=[ModelObject.of(row) for row in models.list_models(context.database)])


@router.get("/{name:path}")
def get_model(name: str, context: ContextDep, tenant: TenantDep) -> ModelObject:
    """Read one model. Names may hold slashes."""
    try:
        if not name.isprintable():  # PostgreSQL refuses some of those instead of finding nothing
            raise NotFound
        return ModelObject.of(models.get(context.database, name))
    except NotFound:
        raise no_such_model(name[:128]) from None
