"""What a batch keeps of how its results are to be written into the caller's own place."""

from enum import StrEnum
from typing import Literal

import msgspec

OUTPUT_KEY = "output"  # of a job's options

CUSTOM_ID = "custom_id"
ANSWER = "answer"
TEXT_COLUMNS = (ANSWER, "finish_reason")
COUNT_COLUMNS = ("prompt_tokens", "cached_tokens", "completion_tokens")
ERROR_COLUMNS = ("error_code", "error_message")
RESULT_COLUMNS = (*TEXT_COLUMNS, *COUNT_COLUMNS, *ERROR_COLUMNS)


class OutputFormat(StrEnum):
    """What shards are written as."""

    PARQUET = "parquet"
    JSONL = "jsonl"


class OutputOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how results are written.

    Attributes:
        uri: the folder or prefix.
        passthrough: the columns of the input that each row is to have again.
    """

    uri: str
    format: OutputFormat = OutputFormat.PARQUET
    passthrough: tuple[str, ...] | Literal["all"] = ()
