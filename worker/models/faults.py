"""What an engine's error means for the lines of a model: they end with it, or they wait."""

from engine.errors import MODEL_FAULTS, EngineError
from worker.errors import ModelNotReady, ModelUnavailable

MOST_CHARACTERS = 600


def lasting(error: EngineError) -> bool:
    """Whether the model's files are at fault, so that it lasts until they are changed."""
    return isinstance(error, MODEL_FAULTS)


def model_error(name: str, source: str, error: EngineError) -> ModelUnavailable | ModelNotReady:
    """The error of the worker's for one of the engine's.

    Its message is for clients: it calls the model by its name, and does not say where it is.

    Args:
        name: what lines call the model.
        source: where its files are.
        error: why it cannot be loaded.
    """
    reason = str(error).replace(source, name) if source.startswith("/") else str(error)
    if len(reason) > MOST_CHARACTERS:
        reason = f"{reason[:MOST_CHARACTERS]}…"
    if lasting(error):
        return ModelUnavailable(f"The model '{name}' cannot be loaded: {reason}")
    message = f"The model '{name}' cannot be loaded at the moment: {reason}"
    return ModelNotReady(message, model=name, reason=error.code)
