"""How Triton's products are configured: within a card's memory, few variants, one a bucket."""

from collections import defaultdict
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from engine.kernels.fused.kernels import activations
from engine.kernels.fused.weights import Int4Weight
from engine.kernels.int8 import Int8Weight
from engine.kernels.triton.launch import INTERPRETED, Launch, collect
from engine.kernels.triton.products.configuration import (
    Capability,
    Kind,
    bucket,
    configuration,
)
from engine.kernels.triton.products.layout import PADDED
from engine.kernels.triton.products.products import TritonProducts
from engine.kernels.triton.products.shipped import SHAPES, shipped_launches
from engine.kernels.triton.products.switch import packed_rows

META = torch.device("meta")
SHARED = {(8, 0): 163, (8, 6): 99, (8, 9): 99, (9, 0): 227, (10, 0): 227, (12, 0): 99}  # KiB
KINDS: tuple[Kind, ...] = ("int8", "float8", "int4")
SHIPPED = sorted({shape for shapes in SHAPES.values() for shape in shapes})


def named(launch: Launch) -> dict[str, Any]:
    """The arguments by their names."""
    return dict(zip(launch.kernel.arg_names, launch.arguments, strict=False))


def variant(launch: Launch) -> tuple[Any, ...]:
    """What a compiled kernel depends on: constants, dtypes, and numbers that are specialized."""
    kernel = launch.kernel
    kept = kernel.kwargs["do_not_specialize"] if INTERPRETED else kernel.do_not_specialize
    seen: list[Any] = []
    for name, value in named(launch).items():
        if isinstance(value, torch.Tensor):
            seen.append(value.dtype)
        elif isinstance(value, int) and name not in (kept or ()):
            seen.append((value == 1, value % 16 == 0))
        else:
            seen.append(value is None)
    constants = sorted((key, str(value)) for key, value in launch.constants.items())
    return kernel.fn.__name__, *seen, *constants


@pytest.mark.parametrize(
    ("rows", "expected"),
    [(1, 16), (16, 16), (17, 32), (32, 32), (33, 64), (1000, 1024), (1024, 1024), (1025, 2048)],
)
def test_rows_go_into_buckets(rows: int, expected: int) -> None:
    assert bucket(rows) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("capability", sorted(SHARED))
def test_tiles_in_flight_fit_into_shared_memory(capability: Capability, kind: Kind) -> None:
    width = 2 if kind == "int4" else 1
    for outputs, inputs in [*SHIPPED, (1, 16), (48, 80), (64, 65536)]:
        for rows in (2**n for n in range(15)):
            found = configuration(capability, kind, rows, outputs, inputs)
            tile = found.rows * width + found.outputs / (2 if kind == "int4" else 1)
            assert tile * found.inputs * found.stages <= SHARED[capability] * 1024
            assert found.outputs <= PADDED or kind != "int4"
            assert 1 <= found.splits <= 8
            assert found.stages >= 2
            assert found.descriptors <= (capability >= (9, 0))


def test_a_tile_of_float32_results_fits_beside_the_inputs_of_the_next() -> None:
    for outputs, inputs in SHIPPED:
        for rows in (128, 1024, 16384):
            found = configuration((9, 0), "int8", rows, outputs, inputs, out_bytes=4)
            tiles = (found.rows + found.outputs) * found.inputs * found.stages
            results = 4 * found.rows * found.outputs if found.descriptors else 0
            assert tiles + results <= SHARED[9, 0] * 1024


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_split_where_tiles_are_few(kind: Kind) -> None:
    assert configuration((9, 0), kind, 16, 4096, 14336).splits > 1
    assert configuration((9, 0), kind, 16, 28672, 4096).splits == 1
    assert configuration((9, 0), kind, 16, 128256, 4096).splits == 1
    assert configuration((9, 0), kind, 16, 576, 64).splits == 1, "nothing to share"


def test_a_step_within_a_bucket_compiles_nothing_new() -> None:
    scales = torch.empty(6144, device=META)
    weight = Int8Weight(torch.empty(6144, 4096, dtype=torch.int8, device=META), scales)
    packed = Int4Weight(
        torch.empty(32, 6144, 64, dtype=torch.uint8, device=META),
        torch.empty(32, 6144, dtype=torch.float16, device=META),
        torch.empty(32, 6144, dtype=torch.float16, device=META),
        6144,
        4096,
        128,
    )
    products = TritonProducts(META, torch.bfloat16, 4096)
    for one, dtype in ((weight, torch.int8), (packed, torch.bfloat16)):
        products.pack(one)
        found: dict[int, set[tuple[Any, ...]]] = defaultdict(set)
        for rows in (1, 2, 15, 16, 17, 31, 32, 33, 60, 64, 100, 128, 129, 250, 256):
            x = activations(rows, 4096, dtype, META)
            out = torch.empty(rows, 6144, dtype=torch.bfloat16, device=META)
            with collect() as launches:
                products.product(x, one, None, out)
            found[bucket(rows)].add(tuple(map(variant, launches)))
        assert len(found) == 5
        assert all(len(variants) == 1 for variants in found.values())


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (9, 0)])
def test_the_shipped_launches_are_few_kernels(capability: Capability) -> None:
    launches = list(shipped_launches(capability))
    assert all(all(launch.grid) for launch in launches)
    variants = set(map(variant, launches))
    assert len(variants) < 150
    kernels = {name for name, *_ in variants}
    expected = {"eight_bit_product", "four_bit_product", "unpack", "group_sums", "add_splits"}
    if capability == (9, 0):
        expected.add("eight_bit_product_by_descriptors")
    assert kernels == expected


def test_workspaces_do_not_grow_once_weights_are_packed() -> None:
    for outputs, inputs in SHIPPED:
        scales = torch.empty(outputs, device=META)
        weight = Int8Weight(torch.empty(outputs, inputs, dtype=torch.int8, device=META), scales)
        products = TritonProducts(META, torch.bfloat16, 200)
        products.pack(weight)
        for rows in (1, 16, 31, 64, 99, 200):
            out = torch.empty(rows, outputs, device=META)
            with collect() as launches:
                products.product(activations(rows, inputs, torch.int8, META), weight, None, out)
            product = named(launches[0])
            assert len(launches) == 1 + (product.get("splits", 1) > 1)
            if len(launches) == 2:
                assert len(product["workspace"]) >= product["splits"] * rows * outputs


def test_packed_weights_are_multiplied_where_they_were_measured_to_be_faster() -> None:
    # Measured on an H200 with groups of 128: at 4096 x 4096, 4 bits lose from 64 rows on.
    assert packed_rows((9, 0), 4096, 4096) == 0
    # At 28672 x 4096 and 256 rows, unpacking (74 us) and the dense product (92) take longer (127).
    assert packed_rows((9, 0), 28672, 4096) == 256
    assert packed_rows((12, 0), 28672, 4096) > 0, "a card that nobody measured"
