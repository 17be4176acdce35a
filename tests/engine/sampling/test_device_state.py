"""What the sampler's host sends to a device that works late, and the pools that grow."""

from engine.kernels.fused.stand_in import StandIn
from engine.sampling.device_state import Mirror, RowPool


def test_rows_arrive_as_they_were_when_they_were_sent() -> None:
    device, seen = StandIn(), []
    mirror = Mirror(device, 3, 2, 0)
    for parity, word in ((0, 5), (1, 6)):
        mirror.words[1] = word
        mirror.changed(1)
        mirror.upload(parity)
        device.submit(lambda: seen.append(mirror.tensor.tolist()))
    device.mark().wait()
    assert seen == [[[0, 0], [5, 5], [0, 0]], [[0, 0], [6, 6], [0, 0]]]


def test_a_pool_doubles_and_gives_rows_that_came_back_first() -> None:
    pool = RowPool()
    assert [pool.take(slot) for slot in (9, 4, 7, 4, 1)] == [0, 1, 2, 1, 3]
    assert pool.capacity == 4
    pool.give_back(7)
    pool.give_back(7)
    assert pool.take(8) == 2
    assert (pool.take(5), pool.capacity) == (4, 8)
