"""The launches that are compiled ahead are those that known models make."""

import pytest
import torch

pytest.importorskip("triton")

from engine.kernels.triton.launch import Launch
from engine.kernels.triton.passes import shipped as passes
from engine.kernels.triton.sampling import shipped as sampling


def names(launches: list[Launch]) -> set[str]:
    return {launch.kernel.__name__ for launch in launches}


def dtypes(launches: list[Launch]) -> set[torch.dtype]:
    tensors = (x for launch in launches for x in launch.arguments if isinstance(x, torch.Tensor))
    return {tensor.dtype for tensor in tensors}


def test_every_kernel_is_among_them() -> None:
    assert names(passes.shipped_launches((9, 0))) == {
        *("embed", "add_norm", "rotate_and_store", "convert_rows", "round_rows")
    }
    assert names(sampling.shipped_launches((9, 0))) == {
        *("race", "settle", "tally", "bound", "gather", "pick", "report_chunks", "report_rows")
    }


def test_fp8_is_left_out_where_a_device_has_none() -> None:
    assert torch.float8_e4m3fn in dtypes(passes.shipped_launches((8, 9)))
    assert torch.float8_e4m3fn not in dtypes(passes.shipped_launches((8, 0)))
    assert torch.int8 in dtypes(passes.shipped_launches((8, 0)))


def test_nothing_of_them_is_computed() -> None:
    for launch in (*passes.shipped_launches((9, 0)), *sampling.shipped_launches((9, 0))):
        assert all(x.is_meta for x in launch.arguments if isinstance(x, torch.Tensor))
