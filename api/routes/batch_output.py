"""Where a new batch's results are to be written, beside its own files: checked before it is
created."""

from typing import Any

from api.context import Context
from api.errors import ApiError, invalid_value
from api.schemas.batch_create import BatchCreate
from storage.datasets.outputs.places import NOT_ALLOWED, OutputPlaces, canonical, check_new_place
from storage.datasets.values.output_options import OUTPUT_KEY
from storage.errors import OutputError
from storage.jobs.outputs.planned import IN_USE

_STATUSES = {NOT_ALLOWED: 403, IN_USE: 409}


def output_of(context: Context, tenant: str, request: BatchCreate) -> dict[str, Any]:
    """What the job's options are to say of its output; nothing where it has none.

    For an estimate the place is checked all the same, and nothing is written there.

    Raises:
        ApiError: 403 where the tenant may not write there; 400 where the place is not empty or not
            writable, or the options do not go together.
        StorageError: the place cannot be reached.
    """
    options = request.tidemill
    uri = options.output_uri
    if uri is None:
        for name in ("format", "passthrough"):
            if getattr(options, name) is not None:
                raise invalid_value(
                    f"'tidemill.{name}' is of results that are written to 'tidemill.output_uri'; "
                    "say that too, or leave it out.",
                    f"tidemill.{name}",
                )
        return {}
    try:
        uri = canonical(uri)
        places = OutputPlaces.of(context.settings.output_prefixes)
        check_new_place(places.open(context.stores.settings, tenant, uri), uri)
    except OutputError as error:
        raise refused_output(error) from None
    if options.estimate:
        return {}
    passthrough = options.passthrough or []
    said = {"uri": uri, "format": options.format or "parquet", "passthrough": passthrough}
    return {OUTPUT_KEY: said}


def refused_output(error: OutputError) -> ApiError:
    """Why results cannot be written where they are to be."""
    status = _STATUSES.get(error.code, 400)
    return ApiError(status, str(error), param=error.param, code=error.code)
