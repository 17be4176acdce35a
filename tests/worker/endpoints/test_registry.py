"""The endpoints that a worker runs are those that the API accepts."""

from storage.endpoints import SERVED
from worker.endpoints.registry import ENDPOINTS


def test_every_endpoint_that_is_served_can_be_run() -> None:
    assert set(ENDPOINTS) == set(SERVED)
    assert all(path == endpoint.path for path, endpoint in ENDPOINTS.items())


def test_a_completion_goes_on_from_its_prompt_and_a_chat_answer_does_not() -> None:
    continues = {path: endpoint.continues for path, endpoint in ENDPOINTS.items()}
    assert continues == {"/v1/chat/completions": False, "/v1/completions": True}
