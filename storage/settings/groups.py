"""The settings by the part that they belong to. Sizes are bytes and times are seconds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

MIB = 1024 * 1024
DEFAULT_TENANT = "default"
_URI = re.compile(r"(?:([^:/]+):)?((?:s3|file)://.*)\Z", re.DOTALL)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?\Z", re.ASCII)


def _entries(value: str) -> Iterator[str]:
    return filter(None, (item.strip() for item in value.split(",")))


def _prefixes(value: str) -> list[tuple[str, str]]:
    found = (_URI.match(entry) for entry in _entries(value))
    return [(match[1] or DEFAULT_TENANT, match[2]) for match in found if match]


class StorageSettings(BaseModel):
    """Where things are kept, and how to reach it.

    The defaults are the embedded mode: SQLite and a local folder under one home folder, and no
    broker. The other modes change ``database_url``, ``object_store_url`` and ``broker_url`` alone.
    """

    model_config = ConfigDict(frozen=True)

    home: Path = Field(
        default=Path("~/.tidemill"),
        validate_default=True,
        description="Folder of the embedded mode.",
    )
    database_url: str = Field(
        default="", description="SQLAlchemy URL; empty: SQLite in the home folder."
    )
    object_store_url: str = Field(
        default="", description="s3://bucket/prefix or file:///folder; empty: the home folder."
    )
    broker_url: str = Field(
        default="memory://",
        description="Celery's broker, e.g. redis://host/0; memory:// or empty is none.",
    )
    start_timeout_seconds: float = Field(
        default=60.0, ge=0, description="How long a process waits at start for its database."
    )

    s3_endpoint_url: str | None = None
    s3_region: str | None = None
    s3_access_key_id: str | None = None
    s3_secret_access_key: SecretStr | None = None
    s3_addressing_style: Literal["auto", "path", "virtual"] = "auto"
    s3_part_bytes: int = Field(default=16 * MIB, ge=5 * MIB)

    @field_validator("home")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        try:
            return value.expanduser().absolute()
        except (RuntimeError, OSError) as error:  # nobody's home, or a working folder that is gone
            raise ValueError(f"'{value}' is no folder that can be found") from error

    @field_validator("database_url", "broker_url", "s3_endpoint_url")
    @classmethod
    def _has_host(cls, value: str | None) -> str | None:
        try:
            hosts = urlsplit(value or "").hostname or ""
        except ValueError:  # not a URL as the web has them; who uses it tells
            return value
        try:
            for host in hosts.split(","):
                host.encode("idna")
        except UnicodeError as error:
            raise ValueError(f"'{hosts}' is no host that can be looked up") from error
        return value

    @property
    def embedded(self) -> bool:
        """Whether everything lives in this process and the home folder: no broker is set."""
        return not self.broker_url or self.broker_url.startswith("memory://")

    @property
    def resolved_database_url(self) -> str:
        """The SQLAlchemy URL, PostgreSQL always through psycopg 3."""
        if not self.database_url:
            return f"sqlite:///{self.home / 'tidemill.db'}"
        for prefix in ("postgresql://", "postgres://"):
            if self.database_url.startswith(prefix):
                return "postgresql+psycopg://" + self.database_url.removeprefix(prefix)
        return self.database_url

    @property
    def database_in_home(self) -> bool:
        """Whether the database is a SQLite file in the home folder, under the home's lock."""
        file = self.resolved_database_url.partition("sqlite:///")[2].partition("?")[0]
        return bool(file) and Path(file).resolve().is_relative_to(self.home.resolve())

    @property
    def resolved_object_store_url(self) -> str:
        """The object store's URL, the home folder's where none is set."""
        return self.object_store_url or (self.home / "objects").as_uri()


class ApiSettings(BaseModel):
    """Where the API listens, who may use it, and how much one client may ask of it."""

    model_config = ConfigDict(frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    api_keys: str = Field(
        default="",
        description="Comma-separated keys, each 'key' or 'tenant:key'; empty: none is asked for.",
    )
    allowed_hosts: str = Field(
        default="",
        description="Further names, comma-separated, that a service without keys may be called by.",
    )

    dataset_uris: str = Field(
        default="",
        description="Comma-separated prefixes of inputs that may be read where they lie, each "
        "'uri' or 'tenant:uri'; empty: none.",
    )
    output_uris: str = Field(
        default="",
        description="The same of places that results may be written to; empty: none.",
    )

    max_connections: int = Field(default=512, ge=1, description="Most connections at once.")
    max_head_bytes: int = Field(
        default=32 * 1024, ge=1024, description="Longest head of a request: all but its body."
    )
    max_url_bytes: int = Field(default=8 * 1024, ge=256, description="Longest URL.")
    max_header_fields: int = Field(default=100, ge=16, description="Most fields of a head.")
    max_form_fields: int = Field(default=32, ge=4, description="Most fields of an upload's form.")
    idle_seconds: float = Field(
        default=30.0, gt=0, description="How long a connection may wait for a request to begin."
    )
    head_seconds: float = Field(
        default=15.0, gt=0, description="How long the head of a request may take to arrive."
    )
    transfer_seconds: float = Field(
        default=30.0, gt=0, description="The time in which a body or a response must go on."
    )
    min_body_rate: int = Field(
        default=512, ge=0, description="Least bytes a second of a body, over each such time."
    )

    max_file_bytes: int = 200 * 1024 * MIB
    max_decoded_bytes: int = Field(
        default=200 * 1024 * MIB, ge=1, description="Most that a compressed input may hold."
    )
    max_line_bytes: int = 8 * MIB
    max_batch_lines: int = 50_000_000
    max_reported_errors: int = 100

    @field_validator("dataset_uris", "output_uris")
    @classmethod
    def _uris(cls, value: str) -> str:
        for entry in _entries(value):
            if _URI.match(entry) is None:
                raise ValueError(
                    f"'{entry}' is no prefix: give 's3://bucket/prefix' or 'file:///folder', "
                    "perhaps with 'tenant:' before it"
                )
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _hosts(cls, value: str) -> str:
        for entry in _entries(value):
            if _HOST.match(entry) is None:
                raise ValueError(f"'{entry}' is no host: give 'name' or 'name:port'")
        return value

    @property
    def keys_by_secret(self) -> dict[str, str]:
        """API key → tenant id; empty where no key is asked for."""
        keys: dict[str, str] = {}
        for entry in _entries(self.api_keys):
            tenant, colon, key = entry.partition(":")
            keys[key if colon else entry] = tenant if colon else DEFAULT_TENANT
        return keys

    @property
    def extra_hosts(self) -> frozenset[str]:
        """The entries of ``allowed_hosts``, in lower case."""
        return frozenset(entry.lower() for entry in _entries(self.allowed_hosts))

    @property
    def dataset_prefixes(self) -> list[tuple[str, str]]:
        """The entries of ``dataset_uris``, each as a tenant and a URI."""
        return _prefixes(self.dataset_uris)

    @property
    def output_prefixes(self) -> list[tuple[str, str]]:
        """The entries of ``output_uris``, likewise."""
        return _prefixes(self.output_uris)


class WorkerSettings(BaseModel):
    """How jobs are cut into chunks, leased and given up."""

    model_config = ConfigDict(frozen=True)

    default_model: str = "smollm2"
    default_max_tokens: int = Field(
        default=1_024, ge=1, description="Output tokens of a chat line that sets no limit."
    )
    model_wait_seconds: float = Field(
        default=300.0,
        ge=0,
        description="How long a batch waits to be planned for a model's files that are not there.",
    )

    output_wait_seconds: float = Field(
        default=3_600.0,
        ge=0,
        description="How long a batch that is done but for its shards waits for a place that "
        "refuses them.",
    )

    control_tokens_in_messages: str = Field(
        default="",
        description="Comma-separated models whose control tokens count where messages spell them.",
    )

    chunk_tokens: int = Field(default=262_144, ge=1, description="Token budget of one chunk.")
    chunk_lines: int = Field(default=1_024, ge=1, description="Most lines of one chunk.")
    plan_window_lines: int = Field(default=100_000, ge=1, description="Lines planned together.")
    plan_window_tokens: int = Field(default=16_000_000, ge=1, description="Tokens, likewise.")

    lease_seconds: float = Field(default=45.0, gt=5)
    renew_seconds: float = Field(default=10.0, gt=0)
    reconcile_seconds: float = Field(default=5.0, gt=0)
    max_crashes: int = Field(default=3, ge=1)
    device_price_per_hour: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="What an hour of one device costs, in any currency; for estimates.",
    )
    drain_seconds: float = Field(
        default=20.0, ge=0, description="On SIGTERM, how long chunks in hand may still run."
    )

    @property
    def models_with_control_tokens(self) -> frozenset[str]:
        """The models that `control_tokens_in_messages` names."""
        return frozenset(map(str.strip, self.control_tokens_in_messages.split(","))) - {""}


class EngineSettings(BaseModel):
    """How the engine is set up.

    The values of all but ``engine_hang_seconds`` are checked where the engine's configuration is
    made (`worker.models.engines.engine_config`), which alone knows the allowed ones.
    """

    model_config = ConfigDict(frozen=True)

    device: str = "auto"
    dtype: str = "auto"
    quantization: str = "auto"
    kv_cache_dtype: str = "auto"
    kv_cache_bytes: int | None = None
    max_num_seqs: int | None = None
    max_batch_tokens: int | None = None
    batching: str = "continuous"
    keep_prepared_weights: bool = Field(
        default=True, description="Keep weights on disk as a CPU runs on them, for the next start."
    )
    engine_hang_seconds: float = Field(
        default=120.0, gt=0, description="Without a sign of life for so long, an engine is ended."
    )


class ProcessSettings(BaseModel):
    """What every process tells of itself, whichever it is."""

    model_config = ConfigDict(frozen=True)

    log_level: str = "INFO"
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = Field(
        default=None, ge=1, le=65535, description="Prometheus metrics; empty: none are served."
    )
