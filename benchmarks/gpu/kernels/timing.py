"""Times on a device: by replay of a graph, so that the host's time is not measured."""

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from statistics import median
from time import perf_counter

import torch
from torch import Tensor

Call = Callable[[], object]
_REPEATS = 5
_TARGET_MS = 10.0


def microseconds(calls: Sequence[Call], device: torch.device) -> float:
    """Of one call: the median over replays of a graph that goes through all of them in turn.

    All do the same work, each on tensors of its own, so that no cache holds what they read. What
    cannot be recorded is timed as it is launched.
    """
    if device.type != "cuda":
        return _on_host(calls)
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for call in calls:
            call()
        once = _elapsed(lambda: [call() for call in calls], stream) / len(calls)
        rounds = max(1, min(200, ceil(_TARGET_MS / max(once, 1e-3)) // len(calls)))

        def all_rounds() -> None:
            for _ in range(rounds):
                for call in calls:
                    call()

        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                all_rounds()
            work: Call = graph.replay
        except RuntimeError:
            torch.cuda.synchronize(device)
            work = all_rounds
        work()
        found = [_elapsed(work, stream) for _ in range(_REPEATS)]
    return median(found) * 1e3 / (rounds * len(calls))


def _elapsed(work: Call, stream: torch.cuda.Stream) -> float:
    """Milliseconds on a stream."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record(stream)
    work()
    last.record(stream)
    last.synchronize()
    milliseconds: float = first.elapsed_time(last)
    return milliseconds


def _on_host(calls: Sequence[Call]) -> float:
    found = []
    for _ in range(2):
        began = perf_counter()
        for call in calls:
            call()
        found.append((perf_counter() - began) / len(calls))
    return min(found) * 1e6


class Ceilings:
    """What the device does at best, measured first.

    Attributes:
        read: bytes a second of a pass that only reads.
        copy: of a pass that reads and writes, both counted.
        flops: a second of a large product, by dtype; of 8 bits that of float8, and twice that of
            bfloat16 where the device has none.
    """

    def __init__(self, device: torch.device, *, toy: bool) -> None:
        count = 2**16 if toy else 2**29
        x = torch.ones(count, dtype=torch.float32, device=device)
        y = torch.empty_like(x)
        self.read = x.nbytes / microseconds([_reader(x)], device) * 1e6
        self.copy = 2 * x.nbytes / microseconds([partial(y.copy_, x)], device) * 1e6
        del x, y  # 4 GiB
        wide = self._product(device, 64 if toy else 8192)
        narrow = 2 * wide
        if not toy and torch.cuda.get_device_capability(device) >= (8, 9):
            narrow = _float8_flops(device, 8192)
        self.flops = {
            torch.float32: wide,  # of a trial run
            torch.bfloat16: wide,
            torch.float8_e4m3fn: narrow,
            torch.int8: narrow,
        }

    def line(self) -> str:
        """All of it in a line."""
        rates = (
            f"{str(dtype).removeprefix('torch.')} {rate / 1e12:,.0f} TFLOP/s"
            for dtype, rate in self.flops.items()
            if dtype != torch.float32
        )
        bandwidths = f"read {self.read / 1e9:,.0f} GB/s, copy {self.copy / 1e9:,.0f} GB/s"
        return ", ".join((bandwidths, *rates))

    def _product(self, device: torch.device, size: int) -> float:
        a, b = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
        out = torch.empty_like(a)
        return 2 * size**3 / microseconds([lambda: torch.mm(a, b, out=out)], device) * 1e6

    def floor(self, moved: int, written: int, flops: int, dtype: torch.dtype) -> float:
        """Microseconds that a pass takes at the least.

        Args:
            moved: bytes read.
            written: bytes written.
            flops: of products.
            dtype: that they are computed in.
        """
        rate = self.read if written * 4 < moved else self.copy
        seconds = max((moved + written) / rate, flops / self.flops[dtype])
        return seconds * 1e6


def _float8_flops(device: torch.device, size: int) -> float:
    a, b = (
        torch.randn(size, size, device=device).clamp(-4, 4).to(torch.float8_e4m3fn)
        for _ in range(2)
    )
    one = torch.ones((), device=device)
    call = partial(torch._scaled_mm, a, b.t(), one, one, out_dtype=torch.bfloat16)
    return 2 * size**3 / microseconds([call], device) * 1e6


def _reader(x: Tensor) -> Call:
    """What reads all of a tensor: a kernel of Triton's where it is, as torch's sum is slower."""
    if x.device.type != "cuda":
        return x.sum
    from gpu.kernels.reading import reader

    return reader(x)
