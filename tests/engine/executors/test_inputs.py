"""A step's index arrays: the same for decodes kept as arrays as for decodes one by one."""

import numpy as np
import pytest

from engine.executors.inputs import BlockTables, StepInputs
from engine.params import SamplingParams
from engine.scheduler.step import UNKNOWN_TOKEN, Admission, Decodes, Step, Work

BLOCK = 4
ADMISSION = Admission(SamplingParams(), 0, (3,), ())
OTHERS = (
    Work(6, 0, (3,), (11,), sample=True, admission=ADMISSION),
    Work(1, 8, (5, 6, 7), (12,), sample=False),
    Work(4, 0, (8, 9, 8, 9, 8), (13, 14), sample=True, admission=ADMISSION),
)
ARRAYS = ("token_ids", "positions", "owners", "query_start", "contexts", "slots")


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(values, dtype=np.int64)


DECODES = Decodes(
    slots=ints(5, 0, 3),
    starts=ints(4, 7, 12),
    token_ids=ints(40, UNKNOWN_TOKEN, 42),
    grown=ints(0, 2),
    new_blocks=ints(20, 21),
)
ONE_BY_ONE = (
    Work(5, 4, (40,), (20,), sample=True),
    Work(0, 7, (UNKNOWN_TOKEN,), (), sample=True),
    Work(3, 12, (42,), (21,), sample=True),
)


def filled(step: Step) -> dict[str, list[int]]:
    tables = BlockTables(8, 6, BLOCK)
    inputs = StepInputs(tables, 32)
    inputs.fill(step)
    arrays = {name: getattr(inputs, name).tolist() for name in ARRAYS}
    return arrays | {
        "counts": [inputs.num_sequences, inputs.num_tokens],
        "sampled": inputs.sampled,
        "rows": inputs.sampled_rows.tolist(),
        "sampled slots": inputs.sampled_slots,
        "tables": tables.rows.ravel().tolist(),
    }


@pytest.mark.parametrize("others", [(), OTHERS])
def test_decodes_kept_as_arrays_are_laid_out_like_works(others: tuple[Work, ...]) -> None:
    step = Step(others, DECODES)
    assert filled(step) == filled(Step(ONE_BY_ONE + others))
    assert step.works == ONE_BY_ONE + others
    assert step.num_tokens == sum(len(work.token_ids) for work in step.works)
    assert step.slots.tolist() == [work.slot for work in step.works]
    assert step.sampled_slots.tolist() == [work.slot for work in step.works if work.sample]


def test_a_mixed_step_is_laid_out_end_to_end() -> None:
    found = filled(Step(OTHERS, DECODES))
    assert found["counts"] == [6, 12]
    assert found["token_ids"][:12] == [40, -1, 42, 3, 5, 6, 7, 8, 9, 8, 9, 8]
    assert found["positions"][:12] == [4, 7, 12, 0, 8, 9, 10, 0, 1, 2, 3, 4]
    assert found["owners"][:12] == [0, 1, 2, 3, 4, 4, 4, 5, 5, 5, 5, 5]
    assert found["query_start"][:7] == [0, 1, 2, 3, 4, 7, 12]
    assert found["contexts"][:6] == [5, 8, 13, 1, 11, 5]
    assert found["slots"][:6] == [5, 0, 3, 6, 1, 4]
    assert found["sampled"] == [0, 1, 2, 3, 5]
    assert found["rows"] == [0, 1, 2, 3, 11]
    table = np.array(found["tables"]).reshape(8, 6)
    assert (table[5, 1], table[3, 3], table[6, 0], table[1, 2]) == (20, 21, 11, 12)
    assert table[4, :2].tolist() == [13, 14]
    assert np.count_nonzero(table) == 6


def test_arrays_are_filled_anew_for_a_shorter_step() -> None:
    inputs = StepInputs(BlockTables(8, 6, BLOCK), 32)
    inputs.fill(Step(OTHERS, DECODES))
    inputs.fill(Step((), DECODES))
    assert (inputs.num_sequences, inputs.num_tokens) == (3, 3)
    assert inputs.query_start[:4].tolist() == [0, 1, 2, 3]
    assert inputs.positions[:3].tolist() == [4, 7, 12]
    assert inputs.sampled == [0, 1, 2]
