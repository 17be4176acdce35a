"""The embedded model, loaded once in float32, where arithmetic leaves no room for ties."""

import os
import shlex

import pytest

from engine import LLM
from engine.kernels.native import build

# Kernels as they are built for a lesser processor, or under a sanitizer: see
# test_native_processors.py and `make sanitize`. The engine itself reads neither.
if "TEST_MACHINE" in os.environ:
    build._MACHINE = os.environ["TEST_MACHINE"]
if "TEST_FLAGS" in os.environ:
    build._FLAGS = (*build._FLAGS, *shlex.split(os.environ["TEST_FLAGS"]))


@pytest.fixture(scope="session")
def llm() -> LLM:
    return LLM("smollm2", device="cpu", dtype="float32", kv_cache_bytes=400 * 2**20, seed=0)
