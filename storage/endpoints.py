"""The endpoints of the API that a batch's lines may name, spelled here alone."""

CHAT_COMPLETIONS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"

SERVED = (CHAT_COMPLETIONS, COMPLETIONS)
PLANNED = ("/v1/embeddings", "/v1/responses")
