"""Which runner a model gets on this machine."""

import torch

from engine.catalog import ModelFiles
from engine.config import EngineConfig, ModelConfig
from engine.executors.build import build, load_decoder
from engine.executors.choose import choose
from engine.executors.device.build import build_device_runner
from engine.executors.runner import Runner, StepRunner
from engine.kernels.fused.backend import DeviceBackend


def start_runner(config: EngineConfig, model: ModelConfig, files: ModelFiles) -> StepRunner:
    """Choose for this machine, load the weights, and get ready to run steps.

    Raises:
        InvalidConfig, CheckpointError, OutOfCache: from choosing the device, loading the weights
            and taking memory for the cache.
    """
    choice = choose(config, model)
    if not isinstance(choice.backend, DeviceBackend):
        return Runner(config, model, build(config, model, files, choice))
    torch.set_num_threads(choice.threads)
    decoder = load_decoder(config, model, files, choice)
    return build_device_runner(config, model, choice, choice.backend, decoder)
