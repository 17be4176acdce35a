"""Names that a user may give on the command line. Every command imports this: keep it cheap."""

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
        from storage.endpoints import CHAT_COMPLETIONS, COMPLETIONS

        return CHAT_COMPLETIONS if self is Endpoint.CHAT else COMPLETIONS


class OnInvalid(StrEnum):
    """What lines that are no requests do to their batch."""

    FAIL = "fail"
    SKIP = "skip"
