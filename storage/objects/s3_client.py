"""A connection to S3, with the endpoint and credentials of the settings."""

from typing import Any

import boto3
from botocore.config import Config

from storage.errors import ConfigurationError
from storage.objects.s3_connection import require_whole_heads
from storage.objects.s3_errors import translated
from storage.settings import StorageSettings


def new_client(settings: StorageSettings) -> Any:
    """A client, safe to use from any thread; nothing is sent to S3 yet.

    Raises:
        ConfigurationError: the endpoint is no address.
    """
    require_whole_heads()
    secret = settings.s3_secret_access_key
    try:
        with translated("s3"):
            return boto3.client(
                "s3",
                endpoint_url=settings.s3_endpoint_url,
                region_name=settings.s3_region,
                aws_access_key_id=settings.s3_access_key_id,
                aws_secret_access_key=secret.get_secret_value() if secret else None,
                config=Config(
                    signature_version="s3v4",
                    connect_timeout=5,
                    read_timeout=60,
                    max_pool_connections=40,
                    retries={"mode": "standard", "total_max_attempts": 5},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    s3={"addressing_style": settings.s3_addressing_style},
                ),
            )
    except ValueError as error:  # botocore's word for it
        raise ConfigurationError(
            "TIDEMILL_S3_ENDPOINT_URL is no address: expected one such as http://host:9000."
        ) from error
