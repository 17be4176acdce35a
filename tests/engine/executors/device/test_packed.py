"""One buffer a step: nothing overlaps, padding is inert, and the device sees what was sent."""

import numpy as np
import torch

from engine.executors.device.packed import NO_SLOT, PackedInputs, StepShape, fill_packed
from engine.executors.device.runner import Version
from engine.executors.inputs import BlockTables, StepInputs
from engine.kernels.fused.stand_in import StandIn
from engine.params import SamplingParams
from engine.scheduler.step import UNKNOWN_TOKEN, Admission, Step, Work

SHAPES = [StepShape(1, 1, 1), StepShape(7, 3, 2), StepShape(64, 5, 5), StepShape(64, 20, 1)]
LARGEST = StepShape(64, 20, 20)


def test_arrays_lie_apart_and_aligned_and_arrive_as_they_were_sent() -> None:
    device = StandIn()
    packed = PackedInputs(device, LARGEST, {"more": 6, "none": 0})
    for side in (0, 1):
        for shape in SHAPES:
            arrays = packed.arrays(side, shape)
            assert sum(map(len, arrays.values())) == sum(shape.fields().values()) + 6
            number = 0
            for array in arrays.values():
                array[:] = np.arange(number, number + len(array))
                number += len(array)
            packed.send(side, shape)
            device.mark().wait()
            for name, tensor in packed.tensors(shape).items():
                assert tensor.tolist() == arrays[name].tolist()
                assert tensor.storage_offset() % 4 == 0
            assert sorted(np.concatenate(list(arrays.values()))) == list(range(number))


def test_arrays_of_tokens_lie_at_one_place_for_equal_numbers_of_tokens() -> None:
    packed = PackedInputs(StandIn(), LARGEST, {})
    first, second = (packed.tensors(shape) for shape in SHAPES[2:])
    for name in ("token_ids", "positions", "cache_slots"):
        assert first[name].data_ptr() == second[name].data_ptr()


def test_a_side_that_is_filled_does_not_change_what_the_other_one_sends() -> None:
    device = StandIn()
    packed, shape = PackedInputs(device, LARGEST, {}), SHAPES[1]
    packed.arrays(0, shape)["positions"][:] = 5
    packed.send(0, shape)
    packed.arrays(1, shape)["positions"][:] = 6
    device.mark().wait()
    assert packed.tensors(shape)["positions"].tolist() == [5] * 7


def admitted(slot: int, start: int, tokens: tuple[int, ...], blocks: tuple[int, ...]) -> Work:
    admission = Admission(SamplingParams(), 0, tokens, ())
    return Work(slot, start, tokens, blocks, True, admission)


def test_padding_writes_nothing_sees_nothing_and_samples_nothing() -> None:
    inputs = StepInputs(BlockTables(8, 4, block_size=4), 32)
    decode = Work(5, 6, (UNKNOWN_TOKEN,), (), True)
    inputs.fill(Step((admitted(5, 0, (9, 8, 7, 6, 5, 4), (3, 1)),)))
    inputs.fill(Step((decode, admitted(2, 4, (21, 22, 23), (7, 6)))))
    shape = StepShape(tokens=8, sequences=4, sampled=4)
    arrays = {name: np.full(size, 99, dtype=np.int32) for name, size in shape.fields().items()}

    fill_packed(arrays, inputs, decodes=False)

    found = {name: array.tolist() for name, array in arrays.items()}
    assert found == {
        "token_ids": [-1 - 5, 21, 22, 23, 0, 0, 0, 0],
        "positions": [6, 4, 5, 6, 0, 0, 0, 0],
        # Position 6 of slot 5 is offset 2 of block 1; 4 to 6 of slot 2 are in block 6.
        "cache_slots": [1 * 4 + 2, 24, 25, 26, -1, -1, -1, -1],
        "query_start": [0, 1, 4, 4, 4],
        "contexts": [7, 7, 0, 0],
        "slots": [5, 2, 0, 0],
        "sampled_rows": [0, 3, 0, 0],
        "sampled_slots": [5, 2, NO_SLOT, NO_SLOT],
        "sampled_positions": [7, 7, 0, 0],
    }


def test_a_narrowed_step_has_a_decode_for_each_sampled_token() -> None:
    inputs = StepInputs(BlockTables(8, 4, block_size=4), 32)
    begun = Work(4, 0, (1, 2, 3), (0,), False, Admission(SamplingParams(), 0, (1, 2, 3, 4), ()))
    inputs.fill(Step((begun, admitted(6, 0, (5, 6, 7, 8, 9), (2, 3)))))
    shape = StepShape(tokens=8, sequences=2, sampled=2, narrowed=True)
    arrays = {name: np.full(size, 99, dtype=np.int32) for name, size in shape.fields().items()}
    fill_packed(arrays, inputs, decodes=False)
    found = {name: array.tolist() for name, array in arrays.items()}
    assert found["sampled_rows"] == [7, 0]
    assert found["narrowed_start"] == [0, 1, 2]
    assert found["sampled_positions"] == [5, 0], "what the decodes see"
    assert found["narrowed_slots"] == [6, 0]


def test_arrays_of_narrowed_steps_are_laid_out_and_sent_for_them_alone() -> None:
    device = StandIn()
    packed = PackedInputs(device, LARGEST, {"more": 6}, {"narrowed_more": 5})
    plain, narrowed = StepShape(64, 20, 20), StepShape(64, 20, 20, narrowed=True)
    assert "narrowed_more" not in packed.arrays(0, plain)
    own = packed.arrays(0, narrowed)
    assert {"narrowed_start", "narrowed_slots", "narrowed_more"} <= own.keys()
    own["narrowed_more"][:] = 8
    packed.send(0, narrowed)
    device.mark().wait()
    assert packed.tensors(narrowed)["narrowed_more"].tolist() == [8] * 5
    places = [packed.tensors(shape)["positions"].data_ptr() for shape in (plain, narrowed)]
    assert places[0] == places[1], "graphs between attention serve both"


def test_a_version_is_of_one_runner_and_of_decodes_alone() -> None:
    inputs = StepInputs(BlockTables(8, 4, block_size=4), 32)
    inputs.fill(Step((admitted(5, 0, (9, 8, 7), (3,)),)))
    one, other = Version(), Version()
    assert one.of(inputs) is None
    inputs.fill(Step((Work(5, 3, (UNKNOWN_TOKEN,), (), True),)))
    before = one.of(inputs)
    assert one.of(inputs) == before
    assert other.of(inputs) != before, "the blocks of another cache"
    one.changed()
    assert one.of(inputs) != before


def test_padded_decodes_have_a_token_each() -> None:
    inputs = StepInputs(BlockTables(8, 4, block_size=4), 32)
    inputs.fill(Step((admitted(1, 0, (3,), (0,)), admitted(0, 0, (4,), (1,)))))
    shape = StepShape(tokens=4, sequences=4, sampled=4)
    arrays = {name: np.full(size, 99, dtype=np.int32) for name, size in shape.fields().items()}
    fill_packed(arrays, inputs, decodes=True)
    assert arrays["query_start"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["contexts"].tolist() == [1, 1, 0, 0]
    assert arrays["cache_slots"].tolist() == [0, 4, -1, -1]
    assert torch.from_numpy(arrays["token_ids"]).tolist() == [3, 4, 0, 0]
