"""The engines that a GPU is measured and checked with, as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gpu.shapes import LLAMA3_8B, QWEN3_06B

PRECISIONS: Mapping[str, Mapping[str, Any]] = {
    "bf16": {"dtype": "bfloat16", "quantization": "none"},
    "fp8": {"dtype": "bfloat16", "quantization": "fp8", "kv_cache_dtype": "fp8"},
    "int8": {"dtype": "bfloat16", "quantization": "int8", "kv_cache_dtype": "bfloat16"},
    "int4": {"dtype": "bfloat16", "quantization": "int4", "kv_cache_dtype": "bfloat16"},
}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "": {},
    "no graphs": {"graphs": False},
    "no overlap": {"overlap": False},
    "no graphs, no overlap": {"graphs": False, "overlap": False},
    "no cascade": {"cascade": False},
    "steps of 8,192": {"max_batch_tokens": 8_192},
    "steps of 16,384": {"max_batch_tokens": 16_384},
}


@dataclass(frozen=True, slots=True)
class Run:
    """One engine, and the workloads that it serves in turn.

    Attributes:
        shape: a name of `gpu.shapes.SHAPES`.
        precision, option: names of the tables above.
        workloads: names of `workloads.WORKLOADS`.
        seconds: that each workload may take.
        profiled: the workload of which some steps are profiled afterwards.
    """

    shape: str
    precision: str
    workloads: tuple[str, ...]
    option: str = ""
    seconds: float = 15.0
    profiled: str = ""

    @property
    def name(self) -> str:
        """For a row."""
        return f"{self.shape} {self.precision} {self.option}".strip()

    @property
    def needed(self) -> float:
        """Seconds that it takes to be ready and to warm up, and a little more."""
        return 12.0 if self.shape == QWEN3_06B else 25.0


# The most telling ones first: the section ends when its time is over.
RUNS = (
    Run(QWEN3_06B, "bf16", ("nano", "groups4096"), profiled="nano"),
    Run(LLAMA3_8B, "bf16", ("long1", "long16", "q1000"), seconds=40, profiled="long16"),
    Run(LLAMA3_8B, "fp8", ("long16", "q1000"), seconds=35),
    Run(LLAMA3_8B, "int4", ("long1", "long16"), profiled="long16"),
    Run(QWEN3_06B, "bf16", ("groups4096",), "no cascade"),
    Run(QWEN3_06B, "bf16", ("nano", "groups4096"), "steps of 8,192"),
    Run(QWEN3_06B, "bf16", ("nano", "groups4096"), "steps of 16,384"),
    Run(QWEN3_06B, "bf16", ("nano", "groups4096"), "no overlap"),
    Run(QWEN3_06B, "bf16", ("nano", "groups4096"), "no graphs"),
    Run(LLAMA3_8B, "int8", ("long16", "q1000"), seconds=35),
    Run(QWEN3_06B, "bf16", ("nano",), "no graphs, no overlap"),
    Run(QWEN3_06B, "int8", ("nano",)),
)
