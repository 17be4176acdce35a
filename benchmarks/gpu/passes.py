"""The section ``kernels``: each fused pass against its floor, and against its reference.

The floor of a pass is what it must read and write at the bandwidth of the device, or its products
at the device's rate, whichever takes longer; both are measured first. Results are compared with
torch's in float32, on outputs that were poisoned.
"""

from collections.abc import Iterator

import torch

from engine.kernels.fused.kernels import FusedKernels
from engine.kernels.reference.fused import ReferenceFused
from gpu.cases import Case, Launch, Written
from gpu.inputs import Inputs, Sizes
from gpu.rows import Section, said
from gpu.timing import Call, Ceilings, microseconds

MOST_ERROR = 2e-2
_COLD_BYTES = 256 * 2**20  # more than a device's last cache holds
_MOST_SETS = 8


def fused_kernels(device: torch.device) -> FusedKernels:
    """The kernels that are measured."""
    return ReferenceFused()


def cases(inputs: Inputs, sizes: Sizes) -> Iterator[Case]:
    """Every case, in the order in which they are measured."""
    eight_bits = [torch.int8, *([torch.float8_e4m3fn] if inputs.float8 else [])]
    for context, sequences in sizes.decodes:
        for dtype in (torch.bfloat16, *eight_bits):
            yield inputs.decode(sequences, context, dtype)
    for tokens, context in sizes.prefills:
        yield inputs.prefill(tokens, context)
    for outputs, width in sizes.weights:
        for rows in sizes.rows:
            for kind in ("bf16", "int4", *(str(x).removeprefix("torch.") for x in eight_bits)):
                yield inputs.product(rows, outputs, width, kind)
    for tokens in sizes.tokens:
        for dtype in (torch.bfloat16, *eight_bits):
            yield inputs.add_norm(tokens, dtype)
            yield inputs.gate(tokens, dtype)
            yield inputs.rotate(tokens, dtype)


def run(section: Section) -> None:
    """Every case that fits into the section's time."""
    device = torch.device(section.device)
    kernels, reference = fused_kernels(device), ReferenceFused()
    ceilings = Ceilings(device, toy=section.dry)
    section.row(
        kernel="ceilings",
        note=f"read {ceilings.read / 1e9:,.0f} GB/s, copy {ceilings.copy / 1e9:,.0f} GB/s, "
        + ", ".join(
            f"{str(dtype).removeprefix('torch.')} {rate / 1e12:,.0f} TFLOP/s"
            for dtype, rate in ceilings.flops.items()
        ),
    )
    skipped = 0
    for case in cases(Inputs(device), Sizes.toy() if section.dry else Sizes.true()):
        if not section.wants(case.name):
            continue
        if section.left < 4:
            skipped += 1
            continue
        try:
            _measure(section, case, kernels, reference, ceilings, device)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            section.row(kernel=case.name, bad=True, note=said(error))
    if skipped:
        section.row(kernel="skipped", note=f"{skipped} cases, as the time was over")


def _measure(
    section: Section,
    case: Case,
    kernels: FusedKernels,
    reference: FusedKernels,
    ceilings: Ceilings,
    device: torch.device,
) -> None:
    moved = case.bytes_read + case.bytes_written
    count = 1 if section.dry else max(1, min(_MOST_SETS, -(-_COLD_BYTES // moved)))
    made = [case.make() for _ in range(count)]
    error = _error(*made[0], kernels, reference)
    calls: list[Call] = [_bound(launch, kernels) for launch, _ in made]
    took = microseconds(calls, device)
    floor = ceilings.floor(case.bytes_read, case.bytes_written, case.flops, case.dtype)
    section.row(
        kernel=case.name,
        us=round(took, 1),
        floor=round(floor, 1),
        share=f"{floor / took:.0%}",
        **{"GB/s": round(moved / took / 1e3), "TFLOP/s": round(case.flops / took / 1e6)},
        error=f"{error:.1e}",
        bad=not error <= MOST_ERROR,
    )


def _bound(launch: Launch, kernels: FusedKernels) -> Call:
    return lambda: launch(kernels)


def _error(
    launch: Launch,
    written: Written,
    kernels: FusedKernels,
    reference: FusedKernels,
) -> float:
    """The largest relative error of what is written; infinite where anything is not finite.

    The reference goes first: what a pass changes in place is put back before the other runs.
    """
    before = [tensor.clone() for tensor in written()]
    launch(reference)
    expected = [tensor.float().clone() for tensor in written()]
    for tensor, old in zip(written(), before, strict=True):
        tensor.copy_(old)
    launch(kernels)
    worst = 0.0
    for tensor, right in zip(written(), expected, strict=True):
        found = tensor.float()
        if not found.isfinite().all():
            return float("inf")
        size = right.norm().clamp_min(1e-30)
        worst = max(worst, float((found - right).norm() / size))
    return worst
