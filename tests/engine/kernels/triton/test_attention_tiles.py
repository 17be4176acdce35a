"""Tiles of attention, and the launches that are shipped."""

from collections import Counter

import pytest

pytest.importorskip("triton")

from engine.kernels.triton.attention.shipped import SHAPES, shipped_launches
from engine.kernels.triton.attention.tiles import (
    Phase,
    TileConfig,
    TileShape,
    row_choices,
    shared_memory,
    tile_config,
)

CAPABILITIES = [(8, 0), (8, 6), (8, 9), (9, 0), (12, 0)]


def test_measured_tiles_are_kept() -> None:
    llama = TileShape(4, 128, 16, 2)
    assert tile_config((9, 0), "decode", 4, llama) == TileConfig(16, 32, 2, 2)
    assert tile_config((9, 0), "prefill", 128, llama) == TileConfig(128, 128, 8, 2)
    assert tile_config((9, 0), "segment", 64, llama) == TileConfig(64, 64, 4, 3)
    assert tile_config((9, 0), "decode", 4, TileShape(4, 128, 128, 2)) == TileConfig(16, 128, 4, 2)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("item", [2, 4])
@pytest.mark.parametrize("cache_format", ["none", "int8", "fp8"])
def test_keys_and_values_in_flight_fit_the_device(
    capability: tuple[int, int], item: int, cache_format: str
) -> None:
    for group, dim, block_size in (
        (1, 32, 1),
        (3, 64, 16),
        (4, 128, 128),
        (8, 256, 16),
        (64, 80, 32),
    ):
        shape = TileShape(group, dim, block_size, item, cache_format)
        prefill, segment = row_choices(capability, group, dim)
        assert sorted(prefill) == list(prefill)
        assert sorted(segment) == list(segment)
        assert min(prefill + segment) >= group
        phases: list[tuple[Phase, tuple[int, ...]]] = [
            ("decode", (group,)),
            ("prefill", prefill),
            ("segment", segment),
        ]
        for phase, choices in phases:
            for rows in choices:
                tile = tile_config(capability, phase, rows, shape)
                kept = tile.stages * 2 * tile.keys * dim * (1 if cache_format != "none" else item)
                assert kept < shared_memory(capability), (phase, rows, shape)
                assert tile.keys & (tile.keys - 1) == 0
                assert 128 % tile.keys == 0, "splits begin at multiples of 128"
                assert tile.rows >= 16


def test_every_phase_of_every_shape_is_shipped() -> None:
    found = Counter(
        (launch.kernel.__name__, launch.constants["HEADS"], launch.constants["HEAD_DIM"])
        for launch in shipped_launches((9, 0))
    )
    kernels = ("decode_kernel", "prefill_kernel", "segment_kernel", "merge_kernel")
    assert set(found) == {(k, heads, dim) for k in kernels for heads, _, dim in SHAPES}
    formats = {launch.constants.get("FORMAT") for launch in shipped_launches((8, 0))}
    assert formats == {"none", "int8", "fp8", None}
