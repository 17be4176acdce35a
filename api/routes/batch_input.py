"""The input of a new batch: an uploaded file, or a dataset where it lies, of which a snapshot is
taken."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from api.context import Context
from api.errors import ApiError, invalid_value, missing_parameter
from api.ids import checked_id
from api.schemas.batch_create import BatchCreate
from api.schemas.files import BATCH_INPUT_SECONDS
from api.uploads import clean_filename
from storage.database.tables import File
from storage.datasets.inputs.allowed import NOT_ALLOWED, AllowedUris
from storage.datasets.inputs.listing import list_files
from storage.datasets.inputs.snapshots import write_snapshot
from storage.datasets.inputs.uris import InputUri
from storage.datasets.readers.kinds import kind_named
from storage.datasets.templates.row_template import RowTemplate
from storage.datasets.values.dataset_options import OPTIONS_KEY
from storage.datasets.values.sources import Kind
from storage.errors import InputModified, InputUriError, NotFound, StorageError, TemplateError
from storage.ids import new_id
from storage.objects import object_keys
from storage.registry import files

URI_PARAM = "tidemill.input_uri"
_TABLES = frozenset({Kind.PARQUET, Kind.CSV, Kind.TSV})


@dataclass(frozen=True, slots=True)
class BatchInput:
    """The file that a batch reads, and what its job is to know of it.

    Attributes:
        options: for the job's options.
        taken: whether the file is a snapshot that was taken for this batch.
    """

    file: File
    options: dict[str, Any]
    taken: bool = False

    def drop(self, context: Context) -> None:
        """Delete a snapshot of which no batch was made; where that fails, it expires."""
        if self.taken:
            with suppress(StorageError):
                files.soft_delete(context.database, self.file.tenant_id, self.file.id)
                context.store.delete(self.file.object_key)


def input_of(context: Context, tenant: str, request: BatchCreate) -> BatchInput:
    """The input that a request names.

    Raises:
        ApiError: 400 where it cannot be taken, 403 where it may not be.
        StorageError: the store failed.
    """
    options = request.tidemill
    said = options.of_rows
    _check_options(request)
    if options.input_uri is None:
        if request.input_file_id is None:
            raise missing_parameter("input_file_id")
        file = find_input(context, tenant, request.input_file_id)
        # Lines of requests are read as they always were, whatever the file is called.
        if not said and kind_named(file.filename) not in _TABLES:
            return BatchInput(file, {})
        if said == {"format": Kind.REQUESTS}:
            return BatchInput(file, {})
        return BatchInput(file, {OPTIONS_KEY: {"name": file.filename, **said}})
    if request.input_file_id is not None:
        raise invalid_value(f"Give 'input_file_id' or '{URI_PARAM}', not both.", URI_PARAM)
    file = _snapshot(context, tenant, options.input_uri, options.input_format)
    return BatchInput(file, {OPTIONS_KEY: said}, taken=True)


def check_still_allowed(context: Context, tenant: str, options: Mapping[str, Any]) -> None:
    """Refuse to read inputs in place again that the settings allow no more (`ApiError` 403)."""
    uris = options.get(OPTIONS_KEY, {}).get("input_uri", ())
    with _refusing():
        for uri in uris:
            _allowed(context).root_of(tenant, InputUri.parse(uri))


def find_input(context: Context, tenant: str, file_id: str) -> File:
    """The uploaded file to run, or `ApiError` 400."""
    try:
        file = files.get(context.database, tenant, checked_id(file_id))
    except NotFound:
        raise no_input(file_id) from None
    if file.purpose != "batch":
        raise invalid_value(
            f"The input file must have the purpose 'batch', not '{file.purpose}'.",
            "input_file_id",
            "invalid_purpose",
        )
    return file


def no_input(file_id: str) -> ApiError:
    """No file of this tenant has the id: 400."""
    message = f"No such File object: {file_id[:64]}"
    return invalid_value(message, "input_file_id", "file_not_found")


def _check_options(request: BatchCreate) -> None:
    options = request.tidemill
    if options.template is None:
        return
    if options.column is not None:
        raise invalid_value(
            "The template says which columns it reads; leave 'tidemill.column' out.",
            "tidemill.column",
        )
    if options.input_format is Kind.REQUESTS:
        raise invalid_value(
            "Whole requests need no template; leave it out, or say what the rows are "
            "('tidemill.input_format').",
            "tidemill.template",
        )
    try:
        RowTemplate.parse(options.template).check_endpoint(request.endpoint)
    except TemplateError as error:
        raise invalid_value(str(error), error.param, error.code) from None


def _snapshot(context: Context, tenant: str, uris: Sequence[str], kind: Kind | None) -> File:
    """List the files, and keep the list as a file of the tenant's."""
    with _refusing():
        settings = context.stores.settings
        found = list_files(settings, _allowed(context), tenant, uris, kind)
    file_id = new_id("file")
    key = object_keys.upload(tenant, file_id)
    with context.store.writer(key) as writer:
        write_snapshot(writer, uris, found)
    name = re.sub(r"[*?\[\]]", "_", uris[0].rstrip("/").rpartition("/")[2]) or "input"
    new = files.NewFile(
        id=file_id,
        tenant_id=tenant,
        purpose="batch",
        filename=clean_filename(f"{name[:200]}.snapshot.jsonl"),
        bytes=writer.size,
        object_key=key,
        etag=writer.info.etag,
        sha256=writer.sha256,
        expires_after=BATCH_INPUT_SECONDS,
    )
    try:
        return files.insert(context.database, new)
    except StorageError:
        with suppress(StorageError):
            context.store.delete(key)
        raise


def _allowed(context: Context) -> AllowedUris:
    return AllowedUris.of(context.settings.dataset_prefixes)


@contextmanager
def _refusing() -> Iterator[None]:
    """Tell a client why an input in place cannot be taken."""
    try:
        yield
    except (InputUriError, InputModified) as error:  # changed while it was looked at
        status = 403 if error.code == NOT_ALLOWED else 400
        raise ApiError(status, str(error), param=URI_PARAM, code=error.code) from None
