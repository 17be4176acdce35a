"""The names a user may give on the command line. No imports: every command starts through here."""

from enum import StrEnum


class Format(StrEnum):
    """The formats of an output."""

    OPENAI = "openai"
    PLAIN = "plain"
    PARQUET = "parquet"


class Endpoint(StrEnum):
    """What plain prompts become: chat messages, or text that is continued as it is."""

    CHAT = "chat"
    COMPLETIONS = "completions"

    @property
    def path(self) -> str:
        """The API's path."""
        return "/v1/chat/completions" if self is Endpoint.CHAT else "/v1/completions"


class OnInvalid(StrEnum):
    """What lines that are no requests do to their batch."""

    FAIL = "fail"
    SKIP = "skip"
