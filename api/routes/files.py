"""``/v1/files``: upload, list, read, download, delete."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Annotated, Any, Literal
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from api.auth import TenantDep
from api.context import Context, ContextDep
from api.errors import ApiError, file_too_large, invalid_value, no_such_file
from api.ids import checked_id
from api.middleware import wants_head
from api.ranges import parse_range
from api.schemas.common import Page
from api.schemas.files import FileDeleted, FileForm, FileObject
from api.threads import in_thread
from api.uploads import READ_BYTES, Upload, store_upload
from storage.database.tables import File
from storage.errors import FileInUse, NotFound, ObjectStoreError, StorageError
from storage.ids import new_id
from storage.objects import ObjectStore, object_keys
from storage.registry import files

router = APIRouter(prefix="/files", tags=["Files"])

FORM_BYTES = 128 * 1024  # more than the other fields and headers may take
CONTENT_TYPE = "application/octet-stream"


def _upload_form() -> dict[str, Any]:
    """The form, for the OpenAPI description; the route itself reads the raw stream."""
    fields = FileForm.model_json_schema(ref_template="#/components/schemas/{model}")
    fields.pop("$defs", None)
    fields["properties"]["file"] = {"type": "string", "format": "binary"}
    fields["required"] = ["file", "purpose"]
    # As the `openai` client writes it: expires_after[anchor] and expires_after[seconds].
    encoding = {"expires_after": {"style": "deepObject", "explode": True}}
    form = {"schema": fields, "encoding": encoding}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}


def _content(what: str, *more: str) -> dict[str, Any]:
    """A response that is bytes of a file, for the OpenAPI description."""
    names = ("Accept-Ranges", "Content-Length", "Content-Disposition", "ETag", *more)
    text = {"schema": {"type": "string"}}
    content = {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}}
    return {"description": what, "headers": dict.fromkeys(names, text), "content": content}


@router.post("", openapi_extra=_upload_form())
async def create_file(request: Request, context: ContextDep, tenant: TenantDep) -> FileObject:
    """Upload a file. It streams to the object store and never sits in memory whole."""
    limit = context.settings.max_file_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit + FORM_BYTES:
        raise file_too_large(limit)  # before the client has sent all of it
    file_id = new_id("file")
    key = object_keys.upload(tenant, file_id)
    content_type = request.headers.get("content-type", "")
    upload = await store_upload(
        content_type, request.stream(), context.store, key, context.settings
    )
    return await to_thread.run_sync(_register, context, tenant, file_id, key, upload)


def _register(context: Context, tenant: str, file_id: str, key: str, upload: Upload) -> FileObject:
    """Add the row of a stored upload; where that fails, delete its object."""
    new = files.NewFile(
        id=file_id,
        tenant_id=tenant,
        purpose=upload.form.purpose,
        filename=upload.filename,
        bytes=upload.info.size,
        object_key=key,
        etag=upload.info.etag,
        sha256=upload.sha256,
        expires_after=upload.form.lifetime,
    )
    try:
        return FileObject.of(files.insert(context.database, new))
    except StorageError:
        with suppress(StorageError):
            context.store.delete(key)
        raise


@router.get("")
def list_files(
    context: ContextDep,
    tenant: TenantDep,
    purpose: Annotated[str | None, Query(pattern=r"^[A-Za-z_-]{1,64}$")] = None,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Literal["asc", "desc"] = "desc",
) -> Page[FileObject]:
    """List files by the time they were made."""
    try:
        page = files.list_files(
            context.database,
            tenant,
            purpose=purpose,
            after=None if after is None else checked_id(after),
            limit=limit,
            order=order,
        )
    except NotFound:
        raise invalid_value(
            f"There is no file '{(after or '')[:64]}' to list after.", "after"
        ) from None
    return Page[FileObject].of([FileObject.of(row) for row in page.items], page.has_more)


@router.get("/{file_id}")
def get_file(file_id: str, context: ContextDep, tenant: TenantDep) -> FileObject:
    """Read a file's facts."""
    return FileObject.of(find_file(context, tenant, file_id))


@router.delete("/{file_id}")
def delete_file(file_id: str, context: ContextDep, tenant: TenantDep) -> FileDeleted:
    """Delete a file. A batch that has read its input by then goes on without it."""
    try:
        row = files.soft_delete(context.database, tenant, checked_id(file_id))
    except NotFound:
        raise no_such_file(file_id[:64]) from None
    except FileInUse as error:
        message = (
            f"The batch '{error.job_id}' has yet to read this file; try again once it runs or has "
            "ended."
        )
        raise ApiError(409, message, code="file_in_use") from None
    with suppress(ObjectStoreError):  # the row is deleted, so nobody finds the file any more
        context.store.delete(row.object_key)
    return FileDeleted(id=row.id)


@router.get(
    "/{file_id}/content",
    response_class=StreamingResponse,
    responses={200: _content("The file."), 206: _content("The range.", "Content-Range")},
)
async def get_content(
    request: Request,
    file_id: str,
    context: ContextDep,
    tenant: TenantDep,
    range_header: Annotated[str | None, Header(alias="range")] = None,
    if_range: Annotated[str | None, Header()] = None,
) -> Response:
    """Download a file, or the one range of bytes that the ``Range`` header asks for."""
    row = await to_thread.run_sync(find_file, context, tenant, file_id)
    etag = f'"{row.sha256}"'
    wanted = parse_range(range_header, row.bytes) if if_range in (None, etag) else None
    start, end = wanted or (0, row.bytes)
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(row.filename, safe='')}",
        "ETag": etag,
    }
    if wanted:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{row.bytes}"
    status = 206 if wanted else 200
    if wants_head(request.scope):
        return Response(None, status, headers, CONTENT_TYPE)
    pieces = _read_pieces(context.store, row.object_key, start, end)
    # The first piece is read before the response begins, while an error can still be sent.
    first = await anext(pieces, b"")
    return StreamingResponse(_chain(first, pieces), status, headers, CONTENT_TYPE)


async def _read_pieces(
    store: ObjectStore, key: str, start: int, end: int
) -> AsyncGenerator[bytes, None]:
    async with in_thread(store.reader(key, start=start, end=end)) as stream:
        while piece := await to_thread.run_sync(stream.read, READ_BYTES):
            yield piece


async def _chain(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for piece in rest:
            yield piece


def find_file(context: Context, tenant: str, file_id: str) -> File:
    """The tenant's file, or `ApiError` 404."""
    try:
        return files.get(context.database, tenant, checked_id(file_id))
    except NotFound:
        raise no_such_file(file_id[:64]) from None
