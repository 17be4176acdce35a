"""The conversion of nibbles in PTX, instruction by instruction, as the interpreter runs none."""

import re

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from engine.kernels.triton.products import nibbles


def words(name: str, registers: dict[str, Tensor]) -> Tensor:
    """A register or a number, as int64."""
    return registers[name] if name in registers else torch.tensor(int(name, 0))


def permuted(low: Tensor, high: Tensor, selector: int) -> Tensor:
    """prmt: each byte of the result is one of the eight."""
    eight = [x >> shift & 0xFF for x in (low, high) for shift in (0, 8, 16, 24)]
    return sum((eight[selector >> 4 * i & 7] << 8 * i for i in range(4)), torch.tensor(0))


def either(a: Tensor, b: Tensor, c: Tensor, table: int) -> Tensor:
    """lop3: bit 4a + 2b + c of the table, for each bit."""
    found = torch.zeros_like(a)
    for i in range(32):
        bits = (a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1)
        found |= (torch.tensor(table) >> bits & 1) << i
    return found


def fused(a: Tensor, b: Tensor, c: Tensor, dtype: torch.dtype) -> Tensor:
    """fma of two numbers of 16 bits in a word; exact in float64, then rounded."""
    found = torch.zeros_like(a)
    for shift in (0, 16):
        x, y, z = (
            (word >> shift & 0xFFFF).to(torch.uint16).view(dtype).double() for word in (a, b, c)
        )
        half = (x * y + z).to(dtype).view(torch.uint16).long()
        found |= half << shift
    return found


def run(text: str, argument: Tensor) -> list[Tensor]:
    """Registers $0 to $3 after the instructions."""
    registers = {"$4": argument}
    for line in re.findall(r"^(\w[^;]*);", text, re.M):
        operation, _, operands = line.partition(" ")
        target, *names = operands.split(", ")
        values = [words(name, registers) for name in names]
        match operation.split("."):
            case ["mov", "b32"]:
                (registers[target],) = values
            case ["shr", "u32"]:
                registers[target] = values[0] >> values[1]
            case ["prmt", "b32"]:
                registers[target] = permuted(values[0], values[1], int(values[2]))
            case ["lop3", "b32"]:
                registers[target] = either(values[0], values[1], values[2], int(values[3]))
            case ["fma", "rn", "bf16x2"]:
                registers[target] = fused(values[0], values[1], values[2], torch.bfloat16)
            case ["fma", "rn", "f16x2"]:
                registers[target] = fused(values[0], values[1], values[2], torch.float16)
            case _:
                raise AssertionError(line)
    return [registers[f"${i}"] for i in range(4)]


@pytest.mark.parametrize(
    ("text", "dtype", "zero"),
    [
        (nibbles.BF16_FROM_0, torch.bfloat16, 0),
        (nibbles.BF16_AROUND_8, torch.bfloat16, 8),
        (nibbles.F16_FROM_0, torch.float16, 0),
        (nibbles.F16_AROUND_8, torch.float16, 8),
    ],
)
def test_every_byte_in_every_place_becomes_its_two_numbers(
    text: str, dtype: torch.dtype, zero: int
) -> None:
    stored = torch.stack([torch.arange(256).roll(shift) for shift in (0, 77, 130, 200)], 1)
    packed = (stored << torch.tensor([0, 8, 16, 24])).sum(1)
    found = run(getattr(text, "value", text), packed)
    halves = [word >> shift & 0xFFFF for word in found for shift in (0, 16)]
    numbers = torch.stack([half.to(torch.uint16).view(dtype).long() for half in halves], 1)
    assert torch.equal(numbers[:, :4], (stored & 15) - zero)
    assert torch.equal(numbers[:, 4:], (stored >> 4) - zero)
