"""Which inputs in place a tenant may name, by the service's settings."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage.datasets.inputs.uris import InputUri
from storage.errors import ConfigurationError, InputUriError

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
