"""A CUDA device with one stream, on which everything runs in order."""

import gc
from contextlib import AbstractContextManager, suppress

import torch
from torch import Tensor

from engine.kernels.fused.device import Graph, Launches


class CudaDevice:
    """See `engine.kernels.fused.device.Device`.

    Args:
        torch_device: as ``cuda`` or ``cuda:1``.
    """

    def __init__(self, torch_device: torch.device) -> None:
        self.torch_device = torch_device
        properties = torch.cuda.get_device_properties(torch_device)
        self.multiprocessors: int = properties.multi_processor_count
        self._stream = torch.cuda.Stream(torch_device)
        self._stream.wait_stream(torch.cuda.default_stream(torch_device))
        self._pool = torch.cuda.graph_pool_handle()

    def use(self) -> AbstractContextManager[object]:
        """See `Device.use`: its stream is the current one."""
        return torch.cuda.stream(self._stream)

    def submit(self, work: Launches) -> None:
        """See `Device.submit`. Kernels are launched at once and run when their turn comes."""
        with self.use():
            work()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """See `Device.pinned`."""
        return torch.zeros(shape, dtype=dtype, pin_memory=True)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """See `Device.copy`."""
        with self.use():
            target.copy_(source, non_blocking=True)

    def mark(self) -> "CudaMark":
        """See `Device.mark`."""
        event = torch.cuda.Event()
        event.record(self._stream)
        return CudaMark(event)

    def record(self, work: Launches) -> Graph:
        """See `Device.record`. Nothing runs; graphs share one pool of memory."""
        graph = torch.cuda.CUDAGraph()
        self._stream.synchronize()
        # A tensor that is collected during the capture would free memory in the middle of it.
        collecting = gc.isenabled()
        gc.disable()
        try:
            with self.use():
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    work()
                except BaseException:
                    with suppress(RuntimeError):  # that it failed is told by the first error
                        graph.capture_end()
                    raise
                graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        return CudaGraph(self, graph)

    def fetch(self, tensor: Tensor) -> Tensor:
        """See `Device.fetch`."""
        with self.use():
            return tensor.cpu()

    def free_memory(self) -> int:
        """See `Device.free_memory`. Waits for all work; returns what torch keeps unused."""
        torch.cuda.synchronize(self.torch_device)
        gc.collect()
        torch.cuda.empty_cache()
        free, _total = torch.cuda.mem_get_info(self.torch_device)
        return free


class CudaMark:
    """See `engine.kernels.fused.device.Mark`."""

    def __init__(self, event: torch.cuda.Event) -> None:
        self._event = event

    def wait(self) -> None:
        """See `Mark.wait`."""
        self._event.synchronize()


class CudaGraph:
    """See `engine.kernels.fused.device.Graph`."""

    def __init__(self, device: CudaDevice, graph: torch.cuda.CUDAGraph) -> None:
        self._device = device
        self._graph = graph

    def replay(self) -> None:
        """See `Graph.replay`."""
        self._device.submit(self._graph.replay)
