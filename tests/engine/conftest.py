"""The embedded model, loaded once in float32, where arithmetic leaves no room for ties."""

import pytest

from engine import LLM


@pytest.fixture(scope="session")
def llm() -> LLM:
    return LLM("smollm2", device="cpu", dtype="float32", kv_cache_bytes=400 * 2**20, seed=0)
