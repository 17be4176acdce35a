"""The endpoints of the API that a batch's lines may name, spelled here alone."""

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

SERVED = (CHAT_COMPLETIONS, COMPLETIONS)
PLANNED = ("/v1/embeddings", "/v1/responses")


def endpoint_named(url: str) -> str:
    """The endpoint that a line's url names; Azure's lines leave its ``/v1`` out."""
    return url if url.startswith("/v1/") else f"/v1{url}" if f"/v1{url}" in SERVED else url
