"""What wake-ups say, and how those of one process reach who listens."""

import threading
from collections import Counter

import pytest

from storage.wakeups import CONTROL_QUEUE, LocalWakeups, Wakeup, model_queue


def test_wakeups_name_their_task_queue_and_arguments() -> None:
    assert Wakeup.plan("batch_1") == Wakeup("tidemill.plan", CONTROL_QUEUE, ("batch_1",))
    assert Wakeup.finalize("batch_1").task == "tidemill.finalize"
    assert Wakeup.drain("org/model") == Wakeup(
        "tidemill.drain", model_queue("org/model"), ("org/model",)
    )


def test_every_subscriber_hears_until_its_own_subscription_ends() -> None:
    wakeups = LocalWakeups()
    wakeups.send(Wakeup.plan("before"))
    heard: list[str] = []

    def hear(wakeup: Wakeup) -> None:
        heard.extend(wakeup.args)

    ends = [wakeups.subscribe(hear), wakeups.subscribe(hear)]
    for left in (2, 1, 0):
        heard.clear()
        wakeups.send(Wakeup.drain("smollm2"))
        assert heard == ["smollm2"] * left
        if ends:
            end = ends.pop()
            end()
            end()  # once more ends no other one


def test_a_subscribers_error_is_logged_and_reaches_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    wakeups = LocalWakeups()
    heard: list[Wakeup] = []

    def fail(wakeup: Wakeup) -> None:
        raise RuntimeError("a bug")

    wakeups.subscribe(fail)
    wakeups.subscribe(heard.append)
    wakeups.send(Wakeup.reconcile())
    assert heard == [Wakeup.reconcile()]
    said = capsys.readouterr().out
    assert "wakeup_not_heard" in said
    assert "RuntimeError" in said


def test_many_threads_send_while_others_come_and_go() -> None:
    wakeups = LocalWakeups()
    heard: list[str] = []
    wakeups.subscribe(lambda wakeup: heard.extend(wakeup.args))
    begin = threading.Barrier(8)

    def send(number: int) -> None:
        begin.wait()
        for _ in range(200):
            end = wakeups.subscribe(lambda wakeup: None)
            wakeups.send(Wakeup.plan(str(number)))
            end()

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert Counter(heard) == {str(number): 200 for number in range(8)}
