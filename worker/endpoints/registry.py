"""Every endpoint that this worker can run."""

from collections.abc import Mapping

from worker.endpoints import chat, completions
from worker.endpoints.endpoint import Endpoint

ENDPOINTS: Mapping[str, Endpoint] = {
    endpoint.path: endpoint for endpoint in (chat.ENDPOINT, completions.ENDPOINT)
}
