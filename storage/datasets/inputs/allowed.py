"""Which inputs in place a tenant may name, by the service's settings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from storage.datasets.inputs.uris import InputUri
from storage.errors import ConfigurationError, InputUriError
from storage.settings import StorageSettings

SETTING = "TIDEMILL_DATASET_URIS"
NOT_ALLOWED = "input_uri_not_allowed"


@dataclass(frozen=True, slots=True)
class AllowedUris:
    """The buckets, prefixes and folders of each tenant."""

    by_tenant: tuple[tuple[str, InputUri], ...]

    @classmethod
    def of(cls, entries: Sequence[tuple[str, str]]) -> "AllowedUris":
        """From pairs of a tenant and a URI, as `ApiSettings.dataset_prefixes` gives them.

        Raises:
            ConfigurationError: one of them is no URI, or a glob.
        """
        try:
            parsed = tuple((tenant, InputUri.parse(text)) for tenant, text in entries)
        except InputUriError as error:
            raise ConfigurationError(f"{SETTING}: {error}") from error
        for _, uri in parsed:
            if uri.is_glob:
                raise ConfigurationError(
                    f"{SETTING} names folders and prefixes, and '{uri}' is a glob."
                )
        return cls(parsed)

    def check_apart(self, settings: StorageSettings) -> None:
        """Check that no prefix gives tenants what the service itself keeps, other tenants' too.

        Raises:
            ConfigurationError: one holds, or lies in, the object store; or holds the home folder.
        """
        for _, uri in self.by_tenant:
            if is_own(settings, uri):
                raise ConfigurationError(
                    f"{SETTING}: '{uri}' holds what the service itself keeps, or lies in it; "
                    "name a folder or prefix beside that."
                )

    def root_of(self, tenant: str, uri: InputUri) -> InputUri:
        """The allowed prefix that a URI lies in.

        Raises:
            InputUriError: it lies in none of this tenant's.
        """
        roots = [root for owner, root in self.by_tenant if owner == tenant]
        found = next((root for root in roots if uri.is_within(root)), None)
        if found is None:
            raise InputUriError(_why_not(uri, any_allowed=bool(roots)), NOT_ALLOWED)
        return found


def is_own(settings: StorageSettings, uri: InputUri) -> bool:
    """Whether a prefix holds what the service itself keeps, or lies in it."""
    store = _real(InputUri.listed(settings.resolved_object_store_url))
    home = _real(InputUri.listed(settings.home.as_uri()))
    root = _real(uri)
    return store.is_within(root) or home.is_within(root) or root.is_within(store)


def _real(uri: InputUri) -> InputUri:
    """A URI without links in it, where it is one of a file."""
    if uri.bucket:
        return uri
    return InputUri("", os.path.realpath(Path("/", uri.path))[1:])


def _why_not(uri: InputUri, *, any_allowed: bool) -> str:
    if not any_allowed:
        return (
            "No input in place is allowed here. Whoever runs the service allows buckets and "
            f"folders with {SETTING}, such as {SETTING}=s3://bucket/prefix."
        )
    return (
        f"'{uri}' is in no bucket or folder that you may read. Whoever runs the service allows "
        f"more with {SETTING}."
    )
