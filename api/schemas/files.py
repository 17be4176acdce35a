"""Files in the API."""

from typing import Literal

from pydantic import BaseModel

from api.schemas.common import DAY, ExpiresAfter, Identified
from storage.database.tables import File

BATCH_INPUT_SECONDS = 30 * DAY

UploadPurpose = Literal["assistants", "batch", "fine-tune", "vision", "user_data", "evals"]


class FileForm(BaseModel):
    """The fields beside the file in an upload's form."""

    purpose: UploadPurpose
    expires_after: ExpiresAfter | None = None

    @property
    def lifetime(self) -> int | None:
        """Seconds until the file goes away; `None`: never. A batch's input stays for 30 days."""
        if self.expires_after is not None:
            return self.expires_after.seconds
        return BATCH_INPUT_SECONDS if self.purpose == "batch" else None


class FileObject(Identified):
    """A file. ``created_at`` and ``expires_at`` are seconds since the epoch."""

    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["uploaded", "processed", "error"] = "processed"
    expires_at: int | None = None
    status_details: str | None = None

    @classmethod
    def of(cls, row: File) -> "FileObject":
        """The wire form of a row."""
        return cls(
            id=row.id,
            bytes=row.bytes,
            created_at=int(row.created_at),
            filename=row.filename,
            purpose=row.purpose,
            expires_at=None if row.expires_at is None else int(row.expires_at),
        )


class FileDeleted(BaseModel):
    """The response to a deletion."""

    id: str
    object: Literal["file"] = "file"
    deleted: bool = True
