"""Names that a user may give on the command line. Every command imports this: keep it cheap."""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from storage.datasets.values.sources import Kind

URI_SCHEMES = ("s3://", "file://")  # of inputs that the service reads where they lie


class Format(StrEnum):
    """The formats of an output."""

    OPENAI = "openai"
    PLAIN = "plain"
    PARQUET = "parquet"


class ShardFormat(StrEnum):
    """The formats of shards."""

    PARQUET = "parquet"
    JSONL = "jsonl"


class InputFormat(StrEnum):
    """What an input file is; ``auto`` tells by its content, and by its name for tables."""

    AUTO = "auto"
    TEXT = "text"
    JSONL = "jsonl"
    REQUESTS = "requests"
    CSV = "csv"
    TSV = "tsv"
    PARQUET = "parquet"

    @property
    def kind(self) -> "Kind | None":
        """The kind of input that is meant; ``None`` leaves it to the file."""
        from storage.datasets.values.sources import Kind

        return None if self is InputFormat.AUTO else Kind(self.value)


class Endpoint(StrEnum):
    """What plain prompts become: chat messages, or text that is continued as it is."""

    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        """The API's path."""
        from storage.endpoints import CHAT_COMPLETIONS, COMPLETIONS

        return CHAT_COMPLETIONS if self is Endpoint.CHAT else COMPLETIONS


class OnInvalid(StrEnum):
    """What lines that are no requests do to their batch."""

    FAIL = "fail"
    SKIP = "skip"
