"""The section ``kernels``: each fused pass against its floor, its reference and the libraries.

The floor of a pass is what it must read and write at the bandwidth of the device, or its products
at the device's rate, whichever takes longer; both are measured first. Results are compared with
torch's in float32, row by row, on outputs that were poisoned.
"""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from gpu.kernels import between, draws, products
from gpu.kernels.attention import decode, prefill, rotate, shared
from gpu.kernels.cases import Case, Kit, Launch, Written
from gpu.kernels.inputs import FP8, Inputs, Sizes
from gpu.kernels.kits import REFERENCE, Kits
from gpu.kernels.timing import Call, Ceilings, microseconds
from gpu.rows import Section, said
from gpu.shapes import LLAMA3_8B, QWEN3_06B

_COLD_BYTES = 256 * 2**20  # more than a device's last cache holds
_MOST_SETS = 8
_SMALLEST_NORM = 1e-2  # of a row, relative to the others', that errors are compared with


def measured(case: Case, kits: Kits) -> Kit:
    """The kernels that are measured."""
    return kits.of(case)


def cases(inputs: Inputs, kits: Kits, sizes: Sizes) -> Iterator[Case]:
    """Every case, in the order in which they are measured: the most telling ones first."""
    every = (inputs.dtype, *inputs.eight_bits)
    for sequences, context in sizes.decodes:
        yield decode(inputs, kits, sequences, context, inputs.dtype, LLAMA3_8B)
    for of_shared in sizes.shared:
        yield from shared(inputs, kits, *of_shared)
    for rows, least in sizes.four_rows:
        yield from products.four_bits(inputs, *sizes.four_bits, rows, least)
    yield products.unpacking(inputs, *sizes.four_bits)
    for tokens, context in sizes.prefills:
        yield prefill(inputs, kits, tokens, context, inputs.dtype)
    yield from draws.draws(inputs, *sizes.logits)
    for rows, (outputs, width) in product(sizes.rows, sizes.weights):
        yield from products.products(inputs, outputs, width, rows)
    for tokens, dtype in product(sizes.tokens, every):
        yield between.add_norm(inputs, tokens, dtype)
        yield between.gate(inputs, tokens, dtype)
        if dtype == torch.int8:
            yield between.gate(inputs, tokens, dtype, transformed=True)
        yield rotate(inputs, tokens, dtype)
    for (sequences, context), dtype in product(sizes.decodes, inputs.eight_bits):
        yield decode(inputs, kits, sequences, context, dtype, LLAMA3_8B)
    for (sequences, context), dtype in product(sizes.decodes[:2], every):
        if not inputs.toy:  # its toy has the heads of the other's
            yield decode(inputs, kits, sequences, context, dtype, QWEN3_06B)
    if FP8 in inputs.eight_bits:
        yield prefill(inputs, kits, *sizes.prefills[0], FP8)


def run(section: Section) -> None:
    """Every case that fits into the section's time."""
    device = section.torch_device
    first = section.first
    section.begins("ceilings")
    ceilings = Ceilings(device, toy=section.dry)
    if first:
        section.row(kernel="ceilings", note=ceilings.line())
    inputs, sizes = Inputs(device), Sizes.toy() if section.dry else Sizes.true()
    bench = Bench(section, Kits(device, inputs.dtype, sizes), ceilings)
    for case in cases(inputs, bench.kits, sizes):
        if not section.begins(case.name):
            continue
        try:
            bench.measure(case)
        except Exception as error:  # noqa: BLE001, whatever it is, the other cases are to be tried
            if case.library and not isinstance(error, torch.AcceleratorError):
                section.row(kernel=case.name, note=f"refused: {said(error)}")
            else:
                section.failed(error, kernel=case.name)
    section.end(kernel="skipped")


class Bench:
    """Measures cases, each beside another one."""

    def __init__(self, section: Section, kits: Kits, ceilings: Ceilings) -> None:
        self.kits = kits
        self._section = section
        self._ceilings = ceilings
        self._device = section.torch_device
        self._took: dict[str, float] = {}

    def measure(self, case: Case) -> None:
        """Write the row of a case."""
        kit = measured(case, self.kits)
        sets = self._sets(case)
        error = 0.0 if case.library else worst_error(*sets[0], kit, REFERENCE)
        took = self._time(case, sets, kit)
        columns: dict[str, object] = {}
        faults = [] if error <= case.most_error else [f"error above {case.most_error:.0e}"]
        if case.beside is not None:
            gain = self._time(case.beside) / took
            columns["gain"] = f"{gain:.2f}"
            if gain < case.least_gain:
                faults.append(f"gain below {case.least_gain}")
        moved = case.bytes_read + case.bytes_written
        floor = self._ceilings.floor(case.bytes_read, case.bytes_written, case.flops, case.dtype)
        self._section.row(
            kernel=case.name,
            us=round(took, 1),
            floor=round(floor, 1),
            share=f"{floor / took:.0%}",
            **{"GB/s": round(moved / took / 1e3), "TFLOP/s": round(case.flops / took / 1e6)},
            **columns,
            error="" if case.library else f"{error:.1e}",
            bad=bool(faults),
            **({"note": ", ".join(faults)} if faults else {}),
        )

    def _sets(self, case: Case) -> list[tuple[Launch, Written]]:
        """Inputs that together are larger than the device's caches."""
        moved = case.bytes_read + case.bytes_written
        count = 1 if self._section.dry else max(1, min(_MOST_SETS, -(-_COLD_BYTES // moved)))
        return [case.make() for _ in range(count)]

    def _time(
        self, case: Case, sets: list[tuple[Launch, Written]] | None = None, kit: Kit | None = None
    ) -> float:
        """Microseconds; measured once."""
        if case.name not in self._took:
            kit = kit or measured(case, self.kits)
            calls = [_bound(launch, kit) for launch, _ in sets or self._sets(case)]
            self._took[case.name] = microseconds(calls, self._device)
        return self._took[case.name]


def _bound(launch: Launch, kit: Kit) -> Call:
    return lambda: launch(kit)


def worst_error(launch: Launch, written: Written, kit: Kit, reference: Kit) -> float:
    """The largest error of any row that is written; infinite where anything is not finite.

    The reference goes first: what a pass changes in place is put back before the other runs.
    """
    before = [tensor.clone() for tensor in written()]
    launch(reference)
    expected = [tensor.clone() for tensor in written()]
    for tensor, old in zip(written(), before, strict=True):
        tensor.copy_(old)
    launch(kit)
    pairs = zip(written(), expected, strict=True)
    return max(_error(found, right) for found, right in pairs)


def _error(found: Tensor, right: Tensor) -> float:
    """Of rows relative to their norms; of tokens the share that differs."""
    if found.dtype == torch.int32:
        return float((found != right).float().mean())
    wide, true = (x.float().view(-1, x.shape[-1] if x.ndim > 1 else 1) for x in (found, right))
    if not wide.isfinite().all():
        return float("inf")
    norms = true.norm(dim=1)
    smallest = _SMALLEST_NORM * norms.square().mean().sqrt()
    return float(((wide - true).norm(dim=1) / norms.clamp_min(smallest).clamp_min(1e-30)).max())
