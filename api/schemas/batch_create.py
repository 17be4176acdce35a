"""The request that creates a batch."""

import hashlib
import json
import re
from typing import Annotated, Any, Literal

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from api.schemas.common import DAY, HOUR, JSON_NUMBER, ExpiresAfter
from storage import endpoints
from storage.datasets.values.sources import Kind

MAX_WINDOW_SECONDS = 365 * DAY

_ONE_OR_MORE = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    "examples": ["s3://bucket/prefix/", ["s3://bucket/a.parquet", "s3://bucket/b.parquet"]],
}
_WINDOW = re.compile(r"([1-9]\d{0,4})([hd])\Z", re.ASCII)


def _check_endpoint(value: str) -> str:
    if value in endpoints.SERVED:
        return value
    served = " and ".join(f"'{name}'" for name in endpoints.SERVED)
    if value in endpoints.PLANNED:
        raise PydanticCustomError(
            "invalid_value",
            "The endpoint '{endpoint}' is not served yet; served are {served}",
            {"endpoint": value, "served": served},
        )
    raise PydanticCustomError(
        "invalid_value",
        "Unknown value for 'endpoint'; supported values are {served}",
        {"served": served},
    )


def parse_window(window: str) -> int:
    """The seconds of a window such as "24h" or "7d"; anything else is Pydantic's error."""
    match = _WINDOW.match(window)
    seconds = int(match[1]) * (HOUR if match[2] == "h" else DAY) if match else 0
    if not 0 < seconds <= MAX_WINDOW_SECONDS:
        raise PydanticCustomError(
            "invalid_value",
            "'completion_window' must be a number of hours or days such as '24h' or '7d', "
            "at most '365d'",
        )
    return seconds


def _check_window(value: str) -> str:
    parse_window(value)
    return value


def _check_template(value: Any) -> Any:
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        orjson.dumps(value)
    except (ValueError, TypeError, RecursionError):
        raise PydanticCustomError(
            "invalid_value",
            "'tidemill.template' has NaN, half of a surrogate pair, a number out of range, or more "
            "than 250 levels",
        ) from None
    return value


Window = Annotated[
    str,
    AfterValidator(_check_window),
    Field(examples=["24h"], json_schema_extra={"pattern": "^[1-9][0-9]{0,4}[hd]$"}),
]
Priority = Annotated[int, Field(ge=-100, le=100), JSON_NUMBER]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16),
]

Template = Annotated[Any, AfterValidator(_check_template)]
ColumnName = Annotated[str, Field(min_length=1, max_length=1_024)]
InputUris = Annotated[
    list[Annotated[str, Field(min_length=1)]],
    Field(min_length=1, max_length=1_000),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema(_ONE_OR_MORE),
]
Passthrough = Literal["all"] | Annotated[list[ColumnName], Field(max_length=1_000)]
OF_ROWS = frozenset({"input_uri", "input_format", "template", "column", "key"})
OF_OUTPUT = frozenset({"output_uri", "format", "passthrough"})
LATER = OF_ROWS | OF_OUTPUT | {"estimate", "sample"}


def fingerprint(request: BaseModel, **more: str) -> str:
    """SHA-256 of a request with its defaults filled in: equal requests have equal fingerprints."""
    values = request.model_dump()
    # Left out where they are not set: a version before knew nothing of them.
    values["tidemill"] = {
        name: value
        for name, value in values["tidemill"].items()
        if name not in LATER or not (value is None or value is False)
    }
    canonical = orjson.dumps(values | more, option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(canonical).hexdigest()


class BatchOptions(BaseModel):
    """What Tidemill adds to the request, under its one key.

    ``on_invalid``: whether an invalid line fails the batch or becomes a line of the error file.
    ``priority``: a batch with a higher one is served first.
    ``input_uri``: an input where it lies, in place of ``input_file_id``. ``input_format``: what
    its files are. ``template``: what makes a request of a row. ``column``: where the prompts are.
    ``key``: the column whose values are the ``custom_id``.
    ``estimate``: nothing is run; the batch ends with its estimate. ``sample`` is a batch that ran
    some of its rows, from which the estimate learns how long outputs are.
    ``output_uri``: a folder or prefix that the results are written to as well, while the batch
    runs. ``format``: what the files there are, by default Parquet. ``passthrough``: the columns of
    the input that each row is to have again, or all.
    """

    model_config = ConfigDict(extra="forbid")

    on_invalid: Literal["fail", "skip"] = "fail"
    priority: Priority = 0
    input_uri: InputUris | None = None
    input_format: Kind | None = None
    template: Template = None
    column: ColumnName | None = None
    key: ColumnName | None = None
    output_uri: Annotated[str, Field(min_length=1, max_length=2_048)] | None = None
    format: Literal["parquet", "jsonl"] | None = None
    passthrough: Passthrough | None = None

    @property
    def of_rows(self) -> dict[str, Any]:
        """What is said of rows, by the names of `DatasetOptions`; empty where nothing is."""
        said = {
            "input_uri": self.input_uri,
            "format": self.input_format,
            "template": self.template,
            "column": self.column,
            "key": self.key,
        }
        return {name: value for name, value in said.items() if value is not None}

    estimate: StrictBool = False
    sample: Annotated[str, Field(min_length=1)] | None = None


class BatchCreate(BaseModel):
    """The body of ``POST /v1/batches``."""

    model_config = ConfigDict(extra="forbid")

    input_file_id: Annotated[str, Field(min_length=1)] | None = None
    endpoint: Annotated[
        str,
        AfterValidator(_check_endpoint),
        Field(json_schema_extra={"enum": list(endpoints.SERVED)}),
    ]
    completion_window: Window
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None
    tidemill: BatchOptions = BatchOptions()

    @property
    def window_seconds(self) -> int:
        """The completion window in seconds."""
        return parse_window(self.completion_window)

    @property
    def output_lifetime(self) -> int | None:
        """Seconds until a result file goes away; `None`: never."""
        return None if self.output_expires_after is None else self.output_expires_after.seconds
