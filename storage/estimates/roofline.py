"""How fast a model ought to run on a device where it never ran: a bound, and a share of it.

Every token is two operations a parameter, and every step reads the weights once (Williams,
Waterman, Patterson, "Roofline", 2009). What is published or measured of a device is its peak; of
that an engine reaches a share.
"""

from dataclasses import dataclass

from storage.estimates.rates import Rates

_ARITHMETIC_REACHED = 0.5
# An output token reads all that comes before it, and is drawn: beside a prompt's token it costs so
# many times as much.
_OUTPUT_COST = 2.5
_BANDWIDTH_REACHED = 0.7
ROOFLINE_SPREAD = 1.0
_START_SECONDS, _LOADING = 2.0, 1e9  # bytes a second, of a local disk


@dataclass(frozen=True, slots=True)
class Device:
    """A device's peaks.

    Attributes:
        name: what rates are kept under, or the device's own name.
        operations: arithmetic of 16 bits a second.
        bandwidth: bytes a second from its memory.
        step_seconds: what a step takes beside.
        gpu: whether it is one.
    """

    name: str
    operations: float
    bandwidth: float
    step_seconds: float
    gpu: bool


@dataclass(frozen=True, slots=True)
class Size:
    """A model's parameters, and the bytes of its weights as they are read in a step."""

    parameters: float
    weight_bytes: float


# As NVIDIA publishes them: dense arithmetic of bfloat16, and the bandwidth of the memory. The first
# name that is in a device's is the one that counts.
_PUBLISHED: tuple[tuple[str, float, float], ...] = (
    ("B200", 2250e12, 8.0e12),
    ("H200", 989e12, 4.8e12),
    ("H100", 989e12, 3.35e12),
    ("A100", 312e12, 2.0e12),
    ("L40S", 362e12, 0.864e12),
    ("L4", 121e12, 0.3e12),
    ("A10", 125e12, 0.6e12),
    ("4090", 165e12, 1.01e12),
)
_ANY_GPU = (121e12, 0.3e12)


def gpu(name: str) -> Device:
    """A GPU by its name; one that is not known is taken for a small one."""
    operations, bandwidth = next((peaks for known, *peaks in _PUBLISHED if known in name), _ANY_GPU)
    return Device(name, operations, bandwidth, step_seconds=0.002, gpu=True)


def start_seconds(size: Size) -> float:
    """How long an engine takes to start: to import what it needs, and to read the weights."""
    return _START_SECONDS + size.weight_bytes / _LOADING


def roofline(size: Size, device: Device) -> Rates:
    """The rates that a model of this size ought to have there."""
    token = 2.0 * size.parameters / (device.operations * _ARITHMETIC_REACHED)
    step = size.weight_bytes / (device.bandwidth * _BANDWIDTH_REACHED) + device.step_seconds
    return Rates(token, _OUTPUT_COST * token, step, spread=ROOFLINE_SPREAD)
