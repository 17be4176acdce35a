"""Wake-ups through a real Celery app."""

import socket
import time

import pytest

from storage.broker import CeleryWakeups, celery_app, open_wakeups
from storage.settings import StorageSettings
from storage.wakeups import LocalWakeups, Wakeup, model_queue


def test_a_wakeup_arrives_as_json_on_its_queue() -> None:
    app = celery_app(StorageSettings(broker_url="memory://"))
    CeleryWakeups(app).send(Wakeup.drain("smollm2"))
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue(model_queue("smollm2"))
        message = queue.get(timeout=5)
        queue.close()
    assert message.headers["task"] == "tidemill.drain"
    assert message.payload[0] == ["smollm2"]
    assert message.content_type == "application/json"
    assert message.headers["expires"] is not None


def test_a_broker_that_is_down_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    wakeups = open_wakeups(StorageSettings(broker_url=f"redis://127.0.0.1:{port}/0"))
    assert isinstance(wakeups, CeleryWakeups)
    begin = time.monotonic()
    wakeups.send(Wakeup.plan("batch_1"))
    assert time.monotonic() - begin < 10
    assert "wakeup_not_sent" in capsys.readouterr().out


@pytest.mark.parametrize("url", ["memory://", "memory://anything", ""])
def test_without_a_broker_wakeups_stay_in_the_process(url: str) -> None:
    settings = StorageSettings(broker_url=url)
    assert settings.embedded
    assert isinstance(open_wakeups(settings), LocalWakeups)


def test_lost_messages_are_meant_to_be_lost() -> None:
    conf = celery_app(StorageSettings(broker_url="redis://127.0.0.1/0")).conf
    assert conf.task_acks_late is False
    assert conf.task_ignore_result is True
    assert conf.worker_prefetch_multiplier == 0  # no limit
    assert conf.accept_content == ["json"]
    assert conf.broker_connection_max_retries is None
