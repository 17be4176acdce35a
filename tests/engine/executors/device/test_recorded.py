"""Work that comes again is recorded once and replayed; the device's queue keeps its order."""

from functools import partial

import numpy as np
import pytest

from engine.executors.device.recorded import Recorded
from engine.executors.device.tables import DeviceTables
from engine.kernels.fused import device as devices
from engine.kernels.fused.stand_in import StandIn, StandInGraph
from engine.params import SamplingParams
from engine.scheduler.step import Admission, Decodes, Step, Work


def test_the_first_run_is_plain_the_second_recorded_the_others_replayed() -> None:
    device = StandIn()
    done: list[int] = []
    recorded = Recorded(device)
    for number in range(4):
        recorded.run("key", partial(done.append, number))
    recorded.run("other", lambda: done.append(9))
    device.mark().wait()
    assert done == [0, 1, 1, 1, 9], "a graph does what it was recorded from"
    assert (device.recorded, device.replayed, len(recorded)) == (1, 3, 1)


def test_nothing_is_recorded_where_that_is_off_or_there_are_enough() -> None:
    device, done = StandIn(), []
    off, few = Recorded(device, enabled=False), Recorded(device, most=1)
    for key in ("a", "a", "a"):
        off.run(key, lambda: done.append("off"))
    for key in ("a", "a", "b", "b"):
        few.run(key, lambda: done.append("few"))
    device.mark().wait()
    assert done == ["off"] * 3 + ["few"] * 4
    assert (device.recorded, device.replayed) == (1, 1)


def test_a_mark_waits_for_what_is_before_it_and_no_more() -> None:
    device, done = StandIn(), []
    device.submit(lambda: done.append(1))
    first = device.mark()
    device.submit(lambda: done.append(2))
    assert done == []
    first.wait()
    assert done == [1]
    first.wait()
    assert (done, device.waiting) == ([1], 1)


def admitted(slot: int, count: int, blocks: tuple[int, ...]) -> Work:
    admission = Admission(SamplingParams(), 0, (1,) * count, ())
    return Work(slot, 0, (1,) * count, blocks, True, admission)


def test_tables_on_the_device_follow_those_on_the_host() -> None:
    device = StandIn()
    tables = DeviceTables(device, 3, 5000, block_size=4)
    tables.update(Step((admitted(1, 8, (7, 8)),)))
    tables.send(0)
    grown = Decodes(*map(np.array, ([2, 1], [3, 8], [5, 5], [1], [9])))
    # More than there is room for at first.
    tables.update(Step((admitted(0, 18_000, tuple(range(4500))),), grown))
    tables.send(1)
    tables.send(0)
    assert tables.rows[1, :3].tolist() == [7, 8, 9]
    tables.update(Step((Work(1, 12, (1, 2), (6,), True),)))
    tables.update(Step((admitted(1, 12, (4, 4, 4)),)))  # another sequence takes the slot
    tables.send(0)
    device.mark().wait()
    assert tables.on_device[1, :4].tolist() == [4, 4, 4, 6]
    assert tables.on_device[0, :4500].tolist() == list(range(4500))
    assert (tables.on_device.numpy() == tables.rows).all()


class Full(StandIn):
    """Has memory for so many graphs."""

    def __init__(self, graphs: int) -> None:
        super().__init__()
        self._graphs = graphs

    def record(self, work: devices.Launches) -> StandInGraph:
        if self.recorded == self._graphs:
            raise RuntimeError("CUDA error: out of memory")
        return super().record(work)


def test_where_there_is_no_memory_for_a_graph_work_is_run_as_it_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    device = Full(1)
    done: list[str] = []
    recorded = Recorded(device)
    for key in "aabbbccaa":
        recorded.run(key, partial(done.append, key))
    device.mark().wait()
    assert "".join(done) == "aabbbccaa"
    assert (device.recorded, device.replayed) == (1, 3)
    assert "No more graphs than 1" in caplog.text
