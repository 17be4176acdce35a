"""The endpoints that a worker runs are those that the API accepts."""

from storage.endpoints import SERVED
from worker.endpoints.registry import ENDPOINTS


def test_every_endpoint_that_is_served_can_be_run() -> None:
    assert set(ENDPOINTS) == set(SERVED)
    assert all(path == endpoint.path for path, endpoint in ENDPOINTS.items())
