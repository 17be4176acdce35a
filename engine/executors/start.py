"""Which runner a model gets on this machine."""

from dataclasses import replace

import torch

from engine.config import EngineConfig, ModelConfig
from engine.executors.build import build, load_decoder
from engine.executors.choose import choose
from engine.executors.device.build import build_device_runner
from engine.executors.runner import Runner, StepRunner
from engine.kernels.fused.backend import DeviceBackend
from engine.models.loading import ModelSource


def start_runner(config: EngineConfig, model: ModelConfig, source: ModelSource) -> StepRunner:
    """Choose for this machine, load the weights, and get ready to run steps.

    Raises:
        InvalidConfig, CheckpointError, OutOfCache: from choosing the device, loading the weights
            and taking memory for the cache.
    """
    choice = choose(config, model)
    backend = choice.backend
    if not isinstance(backend, DeviceBackend):
        return Runner(config, model, build(config, model, source, choice))
    torch.set_num_threads(choice.threads)
    read: list[str] = []
    decoder = load_decoder(config, model, source, choice, read)
    choice = replace(choice, reasons=(*choice.reasons, *read))
    return build_device_runner(config, model, choice, backend, decoder)
