"""Every error the engine raises. ``code`` is stable and meant for programs."""

from typing import Self


class EngineError(Exception):
    """The engine could not do what was asked."""

    code = "engine_error"
    retryable = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class EngineMissing(EngineError):
    """torch is not installed; install the engine with: pip install 'tidemill[engine]'."""

    code = "engine_missing"


class InvalidConfig(EngineError):
    """The engine's configuration is not usable.

    ``field`` names the value that is wrong, where it is a single one.
    """

    code = "invalid_config"

    def __init__(self, message: str | None = None, *, field: str | None = None) -> None:
        super().__init__(message or "The engine's configuration is not usable.")
        self.field = field


class ModelNotFound(EngineError):
    """Nothing is under this name or path, which may be a file system that is not mounted yet."""

    code = "model_not_found"
    retryable = True


class FilesUnreadable(EngineError):
    """A model's files are there, and the system does not let them be read."""

    code = "files_unreadable"
    retryable = True

    @classmethod
    def of(cls, path: object, error: OSError) -> Self:
        """The error of a path, with the system's reason."""
        return cls(f"{path} cannot be read: {error.strerror or error}.")


class UnsupportedModel(EngineError):
    """The checkpoint asks for an architecture or a feature that the engine does not know."""

    code = "unsupported_model"


class CheckpointError(EngineError):
    """The checkpoint's tensors or files do not fit its configuration."""

    code = "checkpoint_error"


class TokenizerError(EngineError):
    """The tokenizer or chat template cannot be read or applied."""

    code = "tokenizer_error"


MODEL_FAULTS = (UnsupportedModel, CheckpointError, TokenizerError)
"""What loading a model raises where its files are at fault: it lasts until they are changed.

Everything else is a fault of the machine or its settings, which may pass.
"""


class InvalidRequest(EngineError):
    """A request's parameter is out of range. ``param`` names it."""

    code = "invalid_request"

    def __init__(self, message: str | None = None, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class PromptTooLong(InvalidRequest):
    """The prompt and the answer do not fit the model's context."""

    code = "context_length_exceeded"


class OutOfCache(EngineError):
    """The KV cache is too small for even one request; give it more memory."""

    code = "out_of_cache"


class EngineDied(EngineError):
    """The engine's process ended unexpectedly."""

    code = "engine_died"
    retryable = True

    def __init__(
        self, message: str | None = None, *, exit_code: int | None = None, log_tail: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.log_tail = log_tail
