"""When a weight of 4 bits is multiplied as it is, unpacked for a step, or kept dense.

A product that is bound by arithmetic takes longer with 4 bits than without, as each weight has to
be converted for every tile of rows. Unpacking a weight once writes and reads 2 bytes a weight.
"""

from dataclasses import dataclass

from engine.kernels.triton.products.configuration import Capability


@dataclass(frozen=True, slots=True)
class Switch:
    """For weights of up to so many elements.

    Attributes:
        elements: outputs · inputs at most; ``None`` is any.
        rows: most rows for which the packed weight is multiplied; from there on it is unpacked. 0
            keeps it dense from the start.
    """

    elements: int | None
    rows: int


# Measured on an H200 in groups of 128, with scales on weights where these kernels scale sums.
# 4096 x 4096 took 10.4 μs at 16 rows, 13.2 at 64 and 26.8 at 256, dense 12.6, 11.2 and 15.9: 4 bits
# save nothing there but memory, and small weights are not where memory goes. 28672 x 4096 took 127
# at 256 rows, dense 92, unpacked and dense 166; for twice as many rows that is 254 at best against
# 74 + 160. 4096 x 14336 took 69, 48 and 86, for twice as many rows 138 against 38 + 90.
_SWITCHES: dict[Capability, tuple[Switch, ...]] = {
    (9, 0): (Switch(2**24, 0), Switch(None, 256)),
}
# With B bytes a second and F operations a second in a dense product, and half of them with 4 bits,
# unpacking pays from 1.25 F / B rows on: 184 on an A100, 208 on an RTX 4090, 220 on an H200.
_OTHERS = (Switch(2**24, 0), Switch(None, 256))


def packed_rows(capability: Capability, outputs: int, inputs: int) -> int:
    """Most rows for which a weight is multiplied in its packed form; 0 means never."""
    for switch in _SWITCHES.get(capability, _OTHERS):
        if switch.elements is None or outputs * inputs <= switch.elements:
            return switch.rows
    raise AssertionError("the last switch is for any number of elements")
